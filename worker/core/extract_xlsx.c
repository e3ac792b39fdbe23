#include "worker/core/extract_office.h"
#include <stdlib.h>

enum { SHEETS_MAX = 1000, COLUMN_MAX = 16384 };

/* ---- shared strings: one text that cells refer to by number ---- */

struct strings {
    struct buf text;
    size_t *end; /* of each in `text` */
    size_t n, cap;
    bool inside, phonetic;
};

static void strings_open(void *arg, const char *name, const char **attr)
{
    struct strings *t = arg;
    (void)attr;
    if (strcmp(name, "t") == 0)
        t->inside = !t->phonetic;
    else if (strcmp(name, "rPh") == 0)
        t->phonetic = true;
}

static void strings_close(void *arg, const char *name)
{
    struct strings *t = arg;
    t->inside = false;
    if (strcmp(name, "rPh") == 0)
        t->phonetic = false;
    if (strcmp(name, "si") != 0)
        return;
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 256;
        t->end = realloc(t->end, t->cap * sizeof *t->end);
        if (!t->end)
            abort();
    }
    t->end[t->n++] = t->text.n;
}

static void strings_text(void *arg, struct str text)
{
    struct strings *t = arg;
    if (t->inside)
        buf_str(&t->text, text);
}

static struct str string_at(const struct strings *t, struct str number)
{
    uint64_t i;
    if (!str_to_u64(number, &i) || i >= t->n)
        return STR("");
    size_t from = i ? t->end[i - 1] : 0;
    return (struct str){t->text.p + from, t->end[i] - from};
}

/* ---- number formats: which cells are dates ---- */

struct formats {
    struct buf custom; /* of uint16_t: numFmtIds that show a date */
    struct buf dates;  /* a byte for each cell style: it shows a date */
    bool in_cells;
};

/* "yyyy\-mm\-dd", but not "[Red]0" or "\"days\"" */
static bool shows_date(const char *code)
{
    for (; *code; code++) {
        if (*code == '[' || *code == '"') {
            const char *end = strchr(code + 1, *code == '[' ? ']' : '"');
            if (!end)
                return false;
            code = end;
        } else if (*code == '\\' && code[1]) {
            code++;
        } else if (strchr("yYdD", *code)) {
            return true;
        }
    }
    return false;
}

static void formats_open(void *arg, const char *name, const char **attr)
{
    struct formats *f = arg;
    const char *id = xml_attr(attr, "numFmtId"), *code = xml_attr(attr, "formatCode");
    uint16_t number = id ? (uint16_t)atoi(id) : 0;
    if (strcmp(name, "numFmt") == 0 && code && shows_date(code)) {
        buf_add(&f->custom, &number, sizeof number);
    } else if (strcmp(name, "cellXfs") == 0) {
        f->in_cells = true;
    } else if (strcmp(name, "xf") == 0 && f->in_cells) {
        bool date = (number >= 14 && number <= 17) || number == 22;
        for (size_t i = 0; i + sizeof number <= f->custom.n && !date; i += sizeof number)
            date = memcmp(f->custom.p + i, &number, sizeof number) == 0;
        buf_ch(&f->dates, date);
    }
}

static void formats_close(void *arg, const char *name)
{
    if (strcmp(name, "cellXfs") == 0)
        ((struct formats *)arg)->in_cells = false;
}

/* Days since 1899-12-30, in the proleptic Gregorian calendar (the two dates of 1900 that Excel gets wrong stay wrong). */
static void put_date(struct buf *out, double serial)
{
    int64_t z = (int64_t)serial - 25569 + 719468, era = z / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153, month = mp < 10 ? mp + 3 : mp - 9;
    int64_t minutes = (int64_t)((serial - (double)(int64_t)serial) * 1440 + 0.5);
    buf_printf(out, "%04d-%02d-%02d", (int)(yoe + era * 400 + (month <= 2)), (int)month,
               (int)(doy - (153 * mp + 2) / 5 + 1));
    if (minutes > 0 && minutes < 1440)
        buf_printf(out, " %02d:%02d", (int)(minutes / 60), (int)(minutes % 60));
}

/* ---- a sheet ---- */

struct sheet {
    struct table table;
    const struct strings *strings;
    const struct formats *formats;
    struct buf cell;
    size_t column;         /* of the next cell */
    char type;             /* of the cell: first letter of its `t`; 'n' by default */
    bool formula_string;   /* t="str" */
    bool date, wanted, ph; /* `wanted`: what comes is its value; `ph`: a reading aid */
};

static size_t column_of(const char *ref)
{
    size_t n = 0;
    for (; *ref >= 'A' && *ref <= 'Z' && n < COLUMN_MAX; ref++)
        n = n * 26 + (size_t)(*ref - 'A' + 1);
    return n ? n - 1 : 0;
}

static void cell_begin(struct sheet *s, const char **attr)
{
    const char *ref = xml_attr(attr, "r"), *type = xml_attr(attr, "t"), *style = xml_attr(attr, "s");
    size_t column = ref ? column_of(ref) : s->column;
    for (; s->column < column && s->column < COLUMN_MAX; s->column++)
        table_cell(&s->table, STR(""));
    size_t i = style ? (size_t)atoi(style) : 0;
    s->date = i < s->formats->dates.n && s->formats->dates.p[i];
    s->type = type ? type[0] : 'n';
    s->formula_string = type && strcmp(type, "str") == 0;
    s->cell.n = 0;
}

static void cell_end(struct sheet *s)
{
    struct str v = buf_view(&s->cell);
    struct buf date = {0};
    char text[40];
    if (s->type == 's' && !s->formula_string)
        v = string_at(s->strings, str_trim(v));
    else if (s->type == 'b')
        v = str_eqz(v, "1") ? STR("TRUE") : STR("FALSE");
    else if (s->type == 'n' && s->date && v.n && v.n < sizeof text) {
        str_copyz(text, sizeof text, v);
        double serial = strtod(text, NULL);
        if (serial >= 1 && serial < 2958466)
            put_date(&date, serial);
        v = date.n ? buf_view(&date) : v;
    }
    table_cell(&s->table, v);
    s->column++;
    buf_fini(&date);
}

static void sheet_open(void *arg, const char *name, const char **attr)
{
    struct sheet *s = arg;
    if (strcmp(name, "row") == 0)
        s->column = 0;
    else if (strcmp(name, "c") == 0)
        cell_begin(s, attr);
    else if (strcmp(name, "rPh") == 0)
        s->ph = true;
    else
        s->wanted = !s->ph && (strcmp(name, "v") == 0 || strcmp(name, "t") == 0);
}

static void sheet_close(void *arg, const char *name)
{
    struct sheet *s = arg;
    s->wanted = false;
    if (strcmp(name, "c") == 0)
        cell_end(s);
    else if (strcmp(name, "row") == 0)
        table_row_end(&s->table);
    else if (strcmp(name, "rPh") == 0)
        s->ph = false;
}

static void sheet_text(void *arg, struct str text)
{
    struct sheet *s = arg;
    if (s->wanted)
        buf_str(&s->cell, text);
}

/* ---- the workbook ---- */

struct workbook {
    struct {
        char name[128], id[64];
    } * sheet;
    size_t n;
};

static void workbook_open(void *arg, const char *name, const char **attr)
{
    struct workbook *w = arg;
    const char *title = xml_attr(attr, "name");
    if (strcmp(name, "sheet") != 0 || !title || w->n == SHEETS_MAX)
        return;
    for (; *attr; attr += 2) /* "id", not "sheetId"; and not the first one that has no prefix */
        if (strchr(attr[0], ':') && strcmp(strrchr(attr[0], ':'), ":id") == 0)
            str_copyz(w->sheet[w->n].id, sizeof w->sheet->id, str_of(attr[1]));
    str_copyz(w->sheet[w->n].name, sizeof w->sheet->name, str_of(title));
    str_utf8_fix(w->sheet[w->n++].name);
}

static void workbook_close(void *arg, const char *name)
{
    (void)arg, (void)name;
}

static int read_sheet(struct source *s, struct zip *z, const char *name, const struct strings *strings,
                      const struct formats *formats)
{
    static const struct xml_events events = {sheet_open, sheet_close, sheet_text};
    struct sheet sheet = {.strings = strings, .formats = formats};
    table_begin(&sheet.table, &s->builder);
    int rc = office_part(s, z, name, &events, &sheet);
    table_end(&sheet.table);
    buf_fini(&sheet.cell);
    return rc;
}

static int read_sheets(struct source *s, struct zip *z, const struct workbook *w, const struct relations *r)
{
    static const struct xml_events string_events = {strings_open, strings_close, strings_text};
    static const struct xml_events format_events = {formats_open, formats_close, NULL};
    struct strings strings = {.n = 0};
    struct formats formats = {.in_cells = false};
    const char *shared = relation_by_type(r, "sharedStrings"), *style = relation_by_type(r, "styles");
    int rc = (shared && office_part(s, z, shared, &string_events, &strings) < 0) ||
                     (style && office_part(s, z, style, &format_events, &formats) < 0)
                 ? -1
                 : 0;
    for (size_t i = 0; i < w->n && rc == 0; i++) {
        const char *part = relation_by_id(r, w->sheet[i].id);
        s->builder.page = (int)++s->pages;
        builder_open(&s->builder, BLOCK_HEADING, 2);
        builder_text(&s->builder, str_of(w->sheet[i].name));
        builder_close(&s->builder);
        if (part && read_sheet(s, z, part, &strings, &formats) < 0)
            rc = -1;
    }
    free(strings.end);
    buf_fini(&strings.text);
    buf_fini(&formats.custom);
    buf_fini(&formats.dates);
    return rc;
}

int extract_xlsx(struct source *s, struct zip *z)
{
    static const struct xml_events events = {workbook_open, workbook_close, NULL};
    struct relations r = {0};
    struct workbook w = {.sheet = calloc(SHEETS_MAX, sizeof *w.sheet)};
    char main[ZIP_NAME_MAX];
    if (!w.sheet)
        abort();
    int rc = office_title(s, z) || office_main(s, z, main) || relations_read(s, z, str_of(main), &r) ||
                     office_part(s, z, main, &events, &w) < 0 || read_sheets(s, z, &w, &r)
                 ? -1
                 : 0;
    free(w.sheet);
    relations_fini(&r);
    return rc;
}
