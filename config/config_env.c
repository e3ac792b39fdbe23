/* The environment, and the file of NAME=value lines that stands in for it. For each key its own name comes first, then
 * the names of existing stacks. An empty variable counts as absent: composed files pass `${X:-}` for what is unset. */
#include "config/config_impl.h"
#include <stdio.h>

struct variable {
    struct str name, value;
    int line; /* of the file; 0: from the process */
};

struct variables {
    struct variable *v;
    size_t n;
    enum config_layer layer;
    const char *file; /* NULL: the process's environment */
};

static int parse_dotenv(struct config *cfg, struct str text, struct variables *vars, struct err *e);
static int apply(struct config *cfg, const struct variables *vars, struct err *e);

int config_env(struct config *cfg, char *const *environ, const char *dotenv_name, struct str dotenv, struct err *e)
{
    struct arena *a = &cfg->origin->arena;
    struct variables file = {.layer = LAYER_DOTENV, .file = dotenv_name}, process = {.layer = LAYER_ENV};
    size_t n = 0;
    if (dotenv_name && (parse_dotenv(cfg, dotenv, &file, e) || apply(cfg, &file, e)))
        return -1;
    while (environ && environ[n])
        n++;
    process.v = arena_alloc(a, (n + 1) * sizeof *process.v);
    for (size_t i = 0; i < n; i++) {
        struct str value = str_of(environ[i]), name = str_cut(&value, '=');
        process.v[process.n++] = (struct variable){.name = name, .value = value};
    }
    return apply(cfg, &process, e);
}

void config_env_name(enum config_key key, char out[CONFIG_ENV_NAME_MAX])
{
    snprintf(out, CONFIG_ENV_NAME_MAX, "RAGD_%s_%s", config_keys[key].section, config_keys[key].name);
    for (char *p = out; *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 32);
}

/* Later ones of the same name win, as in a shell. */
static const struct variable *find(const struct variables *vars, const char *name)
{
    const struct variable *hit = NULL;
    for (size_t i = 0; i < vars->n; i++)
        if (vars->v[i].value.n && str_eqz(vars->v[i].name, name))
            hit = &vars->v[i];
    return hit;
}

static struct config_source source(struct config *cfg, const struct variables *vars, const struct variable *v)
{
    struct arena *a = &cfg->origin->arena;
    if (vars->file)
        return (struct config_source){.layer = vars->layer, .name = vars->file, .line = v->line, .col = 1};
    return (struct config_source){.layer = vars->layer, .name = arena_dup(a, v->name).p};
}

/* The secret in the file that NAME_FILE names: one line. */
static int apply_secret_file(struct config *cfg, enum config_key key, const struct variables *vars,
                             const struct variable *v, struct err *e)
{
    struct arena *a = &cfg->origin->arena;
    struct config_source at = source(cfg, vars, v);
    struct err why;
    struct str text;
    if (config_read_file(a, arena_dup(a, v->value).p, CONFIG_FILE_MAX, &text, NULL, &why))
        return config_fail(e, &at, "%s", why.msg);
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    if (!text.n)
        return config_fail(e, &at, STR_FMT ": the file is empty", STR_ARG(v->value));
    return config_set_text(cfg, key, text, &at, e);
}

/* Other stacks mean seconds by a number alone: CACHE_TTL=300. */
static struct str with_unit(struct config *cfg, enum config_key key, struct str value)
{
    uint64_t seconds;
    if (config_keys[key].type != CONFIG_TIME || !str_to_u64(str_trim(value), &seconds))
        return value;
    return arena_printf(&cfg->origin->arena, "%llus", (unsigned long long)seconds);
}

/* One name of a key, NAME or NAME_FILE; `foreign`: it is one of other stacks. *found: it was there. */
static int apply_name(struct config *cfg, enum config_key key, const struct variables *vars, const char *name,
                      bool foreign, bool *found, struct err *e)
{
    const struct variable *direct = find(vars, name), *file = NULL;
    if (config_keys[key].type == CONFIG_SECRET) {
        char with_file[CONFIG_ENV_NAME_MAX + 8];
        snprintf(with_file, sizeof with_file, "%s_FILE", name);
        file = find(vars, with_file);
    }
    *found = direct || file;
    if (direct && file) {
        struct config_source at = source(cfg, vars, file);
        return config_fail(e, &at, "%s and %s_FILE are both set; one is needed", name, name);
    }
    if (file)
        return apply_secret_file(cfg, key, vars, file, e);
    if (!direct)
        return 0;
    struct config_source at = source(cfg, vars, direct);
    return config_set_text(cfg, key, foreign ? with_unit(cfg, key, direct->value) : direct->value, &at, e);
}

/* The i-th name of a key: its own, then its aliases. False when there are no more. */
static bool key_name(enum config_key key, int i, char out[CONFIG_ENV_NAME_MAX])
{
    struct str rest = str_of(config_keys[key].aliases), one = STR("");
    if (i == 0) {
        config_env_name(key, out);
        return true;
    }
    while (i-- > 0) {
        if (!rest.n)
            return false;
        one = str_cut(&rest, ' ');
    }
    str_copyz(out, CONFIG_ENV_NAME_MAX, one);
    return true;
}

static bool ends(struct str s, const char *tail)
{
    size_t n = strlen(tail);
    return s.n >= n && memcmp(s.p + s.n - n, tail, n) == 0;
}

/* Kubernetes gives every pod variables about every service of its namespace. For one that is called ragd or ragd-x
 * they begin with RAGD_ too, and RAGD_X_PORT may even be the name of a key: "tcp://10.0.0.1:8000". */
static bool is_service_link(const struct variable *v)
{
    static const char *const tails[] = {"_SERVICE_HOST", "_TCP", "_UDP", "_SCTP", "_PROTO", "_ADDR"};
    if (memmem(v->name.p, v->name.n, "_SERVICE_PORT", 13))
        return true;
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        if (ends(v->name, tails[i]))
            return true;
    if (memmem(v->name.p, v->name.n, "_TCP_PORT", 9) || memmem(v->name.p, v->name.n, "_UDP_PORT", 9))
        return true;
    return ends(v->name, "_PORT") && memmem(v->value.p, v->value.n, "://", 3);
}

/* With our prefix and no keys: fault injection, and what a hook is told, which may run a command of ours. */
static const char *const others[] = {
    "RAGD_FAULT_BOOT", "RAGD_FAULT_ROLE", "RAGD_FAULT_PRESSURE", "RAGD_EVENT", "RAGD_PID",      "RAGD_GENERATION",
    "RAGD_REASON",     "RAGD_WORKER_PID", "RAGD_WORKER_SLOT",    "RAGD_ROLE",  "RAGD_REQUESTS",
};

/* Names with our prefix are ours: one that no key has is a mistake. */
static int check_known(struct config *cfg, const struct variables *vars, const struct variable *v, struct err *e)
{
    char name[CONFIG_ENV_NAME_MAX], written[CONFIG_ENV_NAME_MAX], best[CONFIG_ENV_NAME_MAX] = "";
    int best_distance = 5;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (str_eqz(v->name, others[i]))
            return 0;
    str_copyz(written, sizeof written, v->name);
    for (int k = 0; k < KEY_COUNT; k++)
        for (int i = 0; key_name((enum config_key)k, i, name); i++) {
            int d = str_distance(written, name);
            if (strcmp(written, name) == 0)
                return 0;
            if (config_keys[k].type == CONFIG_SECRET && str_starts(v->name, str_of(name)) &&
                str_eqz(str_sub(v->name, strlen(name), SIZE_MAX), "_FILE"))
                return 0;
            if (d < best_distance && strncmp(name, "RAGD_", 5) == 0) {
                best_distance = d;
                str_copyz(best, sizeof best, str_of(name));
            }
        }
    struct config_source at = source(cfg, vars, v);
    return config_fail(e, &at, "%s is not the name of a key%s%s%s", written, *best ? "; did you mean " : "", best,
                       *best ? "?" : "");
}

static int apply(struct config *cfg, const struct variables *vars, struct err *e)
{
    char name[CONFIG_ENV_NAME_MAX];
    for (size_t i = 0; i < vars->n; i++) {
        struct variable *v = &vars->v[i];
        if (!str_starts(v->name, STR("RAGD_")))
            continue;
        if (is_service_link(v))
            v->value = STR("");
        else if (check_known(cfg, vars, v, e))
            return -1;
    }
    for (int k = 0; k < KEY_COUNT; k++) {
        bool found = false;
        for (int i = 0; !found && key_name((enum config_key)k, i, name); i++)
            if (apply_name(cfg, (enum config_key)k, vars, name, i > 0, &found, e))
                return -1;
    }
    return 0;
}

/* A quoted value; `s` begins behind the quote and is moved behind its end. Double quotes know \n \r \t \" \\ \$. */
static bool unquote(struct str *s, char quote, int *line, struct buf *out)
{
    while (s->n) {
        char c = s->p[0];
        *s = str_sub(*s, 1, SIZE_MAX);
        if (c == quote)
            return true;
        if (c == '\n')
            ++*line;
        if (c == '\\' && quote == '"' && s->n) {
            c = s->p[0];
            *s = str_sub(*s, 1, SIZE_MAX);
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
        }
        buf_ch(out, c);
    }
    return false;
}

static struct str skip_blanks(struct str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\r'))
        s = str_sub(s, 1, SIZE_MAX);
    return s;
}

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
        if (!letter && !(i && ((c >= '0' && c <= '9') || c == '.' || c == '-')))
            return false;
    }
    return s.n > 0;
}

/* What stands behind the `=`; moves `text` to the end of the line. A # ends an unquoted value only after a blank. */
static int dotenv_value(struct config *cfg, struct str *text, int *line, const struct config_source *at,
                        struct str *out, struct err *e)
{
    struct str s = skip_blanks(*text);
    if (s.n && (s.p[0] == '"' || s.p[0] == '\'')) {
        struct buf b = {0};
        char quote = s.p[0];
        s = str_sub(s, 1, SIZE_MAX);
        bool closed = unquote(&s, quote, line, &b);
        *out = arena_dup(&cfg->origin->arena, buf_view(&b));
        buf_fini(&b);
        struct str rest = skip_blanks(str_cut(&s, '\n'));
        *text = s;
        if (!closed)
            return config_fail(e, at, "the quote %c is not closed", quote);
        if (rest.n && rest.p[0] != '#')
            return config_fail(e, at, "text after the closing quote");
        return 0;
    }
    struct str value = str_cut(&s, '\n');
    *text = s;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] == '#' && (i == 0 || value.p[i - 1] == ' ' || value.p[i - 1] == '\t'))
            value.n = i;
    if (value.n && value.p[value.n - 1] == '\r')
        value.n--;
    *out = str_trim(value);
    return 0;
}

static int parse_dotenv(struct config *cfg, struct str text, struct variables *vars, struct err *e)
{
    size_t max = 1;
    int line = 0;
    for (size_t i = 0; i < text.n; i++)
        max += text.p[i] == '\n';
    vars->v = arena_alloc(&cfg->origin->arena, max * sizeof *vars->v);
    while (text.n) {
        struct config_source at = {.layer = LAYER_DOTENV, .name = vars->file, .line = ++line, .col = 1};
        text = skip_blanks(text);
        size_t n = 0;
        while (n < text.n && text.p[n] != '\n' && text.p[n] != '=')
            n++;
        struct str name = str_trim(str_sub(text, 0, n)), value;
        if (!name.n || name.p[0] == '#' || n == text.n || text.p[n] == '\n') {
            bool comment = !name.n || name.p[0] == '#';
            if (!comment || (n < text.n && text.p[n] == '=' && !name.n))
                return config_fail(e, &at, "is not of the form NAME=value");
            str_cut(&text, '\n');
            continue;
        }
        if (str_starts(name, STR("export ")))
            name = str_trim(str_sub(name, 7, SIZE_MAX));
        if (!is_name(name))
            return config_fail(e, &at, "\"%.*s\" is not a name", (int)(name.n < 60 ? name.n : 60), name.p);
        text = str_sub(text, n + 1, SIZE_MAX);
        if (dotenv_value(cfg, &text, &line, &at, &value, e))
            return -1;
        vars->v[vars->n++] = (struct variable){name, value, at.line};
    }
    return 0;
}
