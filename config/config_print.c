/* The ways out: the effective configuration as YAML and JSON, the annotated example, the reference for the README. */
#include "config/config_impl.h"
#include <stdio.h>
#include <stdlib.h>

/* YAML takes these few characters in quotes only as escapes; JSON knows the same form. */
static const struct {
    char utf8[4];
    const char *escape;
} escapes[] = {
    {"\"", "\\\""},
    {"\\", "\\\\"},
    {"\xe2\x80\xa8", "\\u2028"},
    {"\xe2\x80\xa9", "\\u2029"},
    {"\xef\xbb\xbf", "\\ufeff"},
    {"\xef\xbf\xbe", "\\ufffe"},
    {"\xef\xbf\xbf", "\\uffff"},
};

static void quoted(struct buf *out, const char *z)
{
    buf_ch(out, '"');
    while (*z) {
        size_t i = 0, n = sizeof escapes / sizeof *escapes;
        while (i < n && strncmp(z, escapes[i].utf8, strlen(escapes[i].utf8)) != 0)
            i++;
        if (i < n) {
            buf_str(out, str_of(escapes[i].escape));
            z += strlen(escapes[i].utf8);
        } else {
            buf_ch(out, *z++);
        }
    }
    buf_ch(out, '"');
}

/* As people write it, if that reads back as the same number: 15 digits always do when a file has no more. */
static void real(struct buf *out, double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_str(out, str_of(text));
}

static void choice(struct buf *out, const char *choices, int index)
{
    struct str rest = str_of(choices), names = STR("");
    for (int i = 0; i <= index; i++)
        names = str_cut(&rest, '|');
    buf_str(out, str_cut(&names, '='));
}

/* Nothing is hidden of a scheme alone, `none:`, and of paths. */
static void secret(struct buf *out, const char *value)
{
    struct str s = str_of(value);
    bool path = str_starts(s, STR("sqlite:")) || (str_starts(s, STR("unix:/")) && !strchr(value, '@'));
    if (!s.n || path || strchr(value, ':') == value + s.n - 1)
        buf_str(out, s);
    else if (strstr(value, "://"))
        config_redact_url(value, out);
    else
        buf_lit(out, "***");
}

/* Lists with a comma between the elements; other types as in config_text(). */
static void value_text(const struct config *cfg, enum config_key key, struct buf *out)
{
    const struct config_key_def *k = &config_keys[key];
    const void *p = config_value(cfg, key);
    switch (k->type) {
    case CONFIG_INT:
    case CONFIG_SIZE:
    case CONFIG_TIME:
    case CONFIG_AUTO: config_print_number(out, k->type, *(const int64_t *)p); return;
    case CONFIG_REAL: real(out, *(const double *)p); return;
    case CONFIG_BOOL: buf_str(out, str_of(*(const bool *)p ? "true" : "false")); return;
    case CONFIG_ENUM: choice(out, k->choices, *(const int *)p); return;
    case CONFIG_STR: buf_str(out, str_of(*(const char *const *)p)); return;
    case CONFIG_SECRET: secret(out, *(const char *const *)p); return;
    case CONFIG_LIST: break;
    }
    const struct config_list *l = p;
    for (int i = 0; i < l->n; i++)
        buf_printf(out, "%s%s", i ? ", " : "", l->v[i]);
}

void config_text(const struct config *cfg, enum config_key key, struct buf *out)
{
    value_text(cfg, key, out);
}

static bool is_text(enum config_type type)
{
    return type == CONFIG_STR || type == CONFIG_SECRET || type == CONFIG_ENUM || type == CONFIG_LIST;
}

/* As YAML, and with `json` as JSON; the two differ in that YAML has bare words for sizes, times and choices. */
static void value(const struct config *cfg, enum config_key key, bool json, struct buf *out)
{
    enum config_type type = config_keys[key].type;
    if (type == CONFIG_LIST) {
        const struct config_list *l = config_value(cfg, key);
        buf_ch(out, '[');
        for (int i = 0; i < l->n; i++) {
            if (i)
                buf_lit(out, ", ");
            quoted(out, l->v[i]);
        }
        buf_ch(out, ']');
        return;
    }
    bool bare = type == CONFIG_INT || type == CONFIG_REAL || type == CONFIG_BOOL ||
                (type == CONFIG_AUTO && *(const int64_t *)config_value(cfg, key) != 0) ||
                (!json && (!is_text(type) || type == CONFIG_ENUM));
    struct buf text = {0};
    value_text(cfg, key, &text);
    buf_ch(&text, 0);
    if (bare)
        buf_str(out, str_of(text.p));
    else
        quoted(out, text.p);
    buf_fini(&text);
}

static void origin(const struct config *cfg, enum config_key key, struct buf *out)
{
    const struct config_source *at = &cfg->origin->of[key];
    static const char *const layers[] = {"default", "", "", "environment ", "command line"};
    if (at->line)
        buf_printf(out, "%s:%d:%d", at->name, at->line, at->col);
    else
        buf_printf(out, "%s%s", layers[at->layer], at->layer == LAYER_ENV ? at->name : "");
}

static bool first_of_section(int k)
{
    return k == 0 || strcmp(config_keys[k].section, config_keys[k - 1].section) != 0;
}

void config_dump(const struct config *cfg, struct buf *out)
{
    for (int k = 0; k < KEY_COUNT; k++) {
        size_t start;
        if (first_of_section(k))
            buf_printf(out, "%s%s:\n", k ? "\n" : "", config_keys[k].section);
        start = out->n;
        buf_printf(out, "  %s: ", config_keys[k].name);
        value(cfg, (enum config_key)k, false, out);
        while (out->n - start < 40)
            buf_ch(out, ' ');
        buf_lit(out, " # ");
        origin(cfg, (enum config_key)k, out);
        buf_ch(out, '\n');
    }
}

void config_dump_json(const struct config *cfg, struct buf *out)
{
    buf_ch(out, '{');
    for (int k = 0; k < KEY_COUNT; k++) {
        if (first_of_section(k))
            buf_printf(out, "%s\n  \"%s\": {", k ? "\n  }," : "", config_keys[k].section);
        else
            buf_ch(out, ',');
        buf_printf(out, "\n    \"%s\": ", config_keys[k].name);
        value(cfg, (enum config_key)k, true, out);
    }
    buf_lit(out, "\n  }\n}\n");
}

static void names(enum config_key key, const char *quote, struct buf *out)
{
    char own[CONFIG_ENV_NAME_MAX];
    config_env_name(key, own);
    buf_printf(out, "%s%s%s", quote, own, quote);
    for (struct str rest = str_of(config_keys[key].aliases); rest.n;) {
        struct str one = str_cut(&rest, ' ');
        buf_printf(out, ", %s" STR_FMT "%s", quote, STR_ARG(one), quote);
    }
    if (config_keys[key].type == CONFIG_SECRET)
        buf_printf(out, "; each also with %s_FILE%s", quote, quote);
}

/* What may stand there, in words: "1 to 128 or auto", "text | json", "1K to 4G". */
static void range(enum config_key key, struct buf *out)
{
    const struct config_key_def *k = &config_keys[key];
    enum config_type unit = k->type == CONFIG_AUTO || k->type == CONFIG_REAL ? CONFIG_INT : k->type;
    switch (k->type) {
    case CONFIG_BOOL: buf_lit(out, "true or false"); return;
    case CONFIG_STR:
    case CONFIG_SECRET: buf_lit(out, "text"); return;
    case CONFIG_LIST: buf_lit(out, "list"); return;
    case CONFIG_ENUM: config_print_choices(out, k->choices); return;
    default:
        config_print_number(out, unit, k->min);
        buf_lit(out, " to ");
        config_print_number(out, unit, k->max);
        if (k->type == CONFIG_AUTO)
            buf_lit(out, ", or auto");
    }
}

const char *config_apply_text(enum config_apply apply)
{
    static const char *const texts[] = {"pushed to the workers", "new workers", "new sockets",
                                        "needs an upgrade or a restart"};
    return texts[apply];
}

void config_example(struct buf *out)
{
    struct config *cfg;
    struct err e;
    if (config_load(&(struct config_args){0}, &cfg, &e)) /* the defaults are code: they load, or the table is wrong */
        abort();
    buf_lit(out, "# Every key of ragd at its default, printed by `ragd dump --example` from config/keys.def.\n"
                 "# Stronger than this file are environment variables, and --set section.key=value above them.\n"
                 "# Sizes: 64K, 10M, 1G. Times: 250ms, 10s, 5m, 24h, 7d. Lists: [a, b] or \"a, b\".\n");
    for (int k = 0; k < KEY_COUNT; k++) {
        enum config_key key = (enum config_key)k;
        if (first_of_section(k))
            buf_printf(out, "\n# %s\n%s:", config_section_doc(config_keys[k].section), config_keys[k].section);
        buf_printf(out, "\n  # %s\n  # ", config_keys[k].doc);
        range(key, out);
        buf_lit(out, ". Environment: ");
        names(key, "", out);
        buf_printf(out, ". Reload: %s.\n  %s: ", config_apply_text(config_keys[k].apply), config_keys[k].name);
        value(cfg, key, false, out);
        buf_ch(out, '\n');
    }
    config_free(cfg);
}

void config_reference(struct buf *out)
{
    for (int k = 0; k < KEY_COUNT; k++) {
        enum config_key key = (enum config_key)k;
        if (first_of_section(k))
            buf_printf(out,
                       "%s### %s\n\n%s.\n\n| key | default | values | environment | reload | meaning |\n"
                       "|---|---|---|---|---|---|\n",
                       k ? "\n" : "", config_keys[k].section, config_section_doc(config_keys[k].section));
        buf_printf(out, "| `%s` | %s%s%s | ", config_keys[k].full, *config_keys[k].def ? "`" : "", config_keys[k].def,
                   *config_keys[k].def ? "`" : "");
        range(key, out);
        buf_lit(out, " | ");
        names(key, "`", out);
        buf_printf(out, " | %s | %s |\n", config_apply_text(config_keys[k].apply), config_keys[k].doc);
    }
}

static bool is_secret_name(struct str name)
{
    static const char *const words[] = {"pass", "secret", "token", "key", "pwd"};
    char z[64];
    str_copyz(z, sizeof z, name);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasestr(z, words[i]))
            return true;
    return false;
}

/* Parameters behind the `?`: ?password=x&sslmode=y */
static void redact_query(struct str query, struct buf *out)
{
    while (query.n) {
        struct str v = str_cut(&query, '&'), name = str_cut(&v, '=');
        buf_str(out, name);
        if (v.n || (name.p + name.n < v.p)) {
            buf_ch(out, '=');
            if (is_secret_name(name))
                buf_lit(out, "***");
            else
                buf_str(out, v);
        }
        if (query.n)
            buf_ch(out, '&');
    }
}

/* The password ends at the last @ of all: one that should have been escaped, with / or ? or @ in it, stays hidden too. */
void config_redact_url(const char *url, struct buf *out)
{
    const char *start = strstr(url, "://"), *at = strrchr(url, '@');
    start = start ? start + 3 : url;
    if (at && at > start) {
        const char *colon = memchr(start, ':', (size_t)(at - start));
        if (colon) {
            buf_add(out, url, (size_t)(colon + 1 - url));
            buf_lit(out, "***");
        } else {
            buf_add(out, url, (size_t)(at - url));
        }
        url = at;
    }
    struct str query = str_of(url), head = str_cut(&query, '?');
    buf_str(out, head);
    if (url[head.n] == '?') {
        buf_ch(out, '?');
        redact_query(query, out);
    }
}
