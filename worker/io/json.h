/* JSON. In: jansson, after a scan that bounds nesting before anything recurses. Out: written by hand into a buffer,
 * because hot replies are (building objects only to print them costs half of the throughput). */
#pragma once
#include "common/arena.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/uuid.h"
#include <jansson.h>

/* Parses a whole text. Duplicate member names, nesting beyond `depth`, NUL escapes (no store can hold them) and
 * trailing bytes are errors (ERR_BAD_REQUEST naming line, column, and what was found). The value belongs to the arena. */
must_use int json_parse(struct arena *a, struct str text, int depth, json_t **out, struct err *e);
/* The same, and it must be an object. */
must_use int json_parse_object(struct arena *a, struct str text, int depth, json_t **out, struct err *e);

/* The same, but the value of the string member `name` is taken out of the object and given as a slice, of `text` or of the
 * arena. lifted->p is NULL when there is no such member, or it is empty or no string; then the object is whole. */
must_use int json_parse_lifting(struct arena *a, struct str text, int depth, const char *name, json_t **out,
                                struct str *lifted, struct err *e);

/* Members of an object, checked: one table says which are allowed, of which type, and where the value goes. Unknown
 * members are ERR_VALIDATION at their pointer with the nearest known name, unless `lenient`. */
enum json_kind {
    JSON_STR,    /* struct str */
    JSON_OBJ,    /* json_t * */
    JSON_ARR,    /* json_t * */
    JSON_ANY,    /* json_t * */
    JSON_INT64,  /* int64_t, between min and max */
    JSON_DOUBLE, /* double, finite, between min and max */
    JSON_BOOLEAN /* bool */
};
struct json_member {
    const char *name;
    enum json_kind kind;
    bool required;
    bool nullable;    /* null is accepted; *present becomes true and the value stays as it was */
    int64_t min, max; /* numbers: value; strings: bytes; arrays: elements. Both 0: unbounded */
    void *out;
    bool *present; /* may be NULL */
};
must_use int json_members(struct arena *a, json_t *object, const char *pointer, const struct json_member *table,
                          size_t n, bool lenient, struct err *e);

/* RFC 6901 pointer of member `name` of what `parent` points to, cut to `cap`. For arrays `name` is the index. */
void json_pointer(char *out, size_t cap, const char *parent, const char *name);

/* Compact text of a value, in the arena; members in their order. */
struct str json_text(struct arena *a, const json_t *value);
void json_dump(struct buf *out, const json_t *value);

/* Writers. Commas are the caller's, except through struct json_out, which sets them. */
void json_escape(struct buf *out, struct str s); /* quoted; invalid UTF-8 becomes U+FFFD */

struct json_out {
    struct buf *b;
    bool comma;
};
static inline struct json_out json_out(struct buf *b)
{
    return (struct json_out){b, false};
}
void jo_begin(struct json_out *o, char open);     /* '{' or '[' as a value */
void jo_end(struct json_out *o, char close);      /* '}' or ']' */
void jo_key(struct json_out *o, struct str name); /* `name` needs no escaping: it is ours */
/* The same for a literal: one copy, comma and quotes included. */
#define jo_member(o, name) jo_member_text(o, ",\"" name "\":", sizeof(name) + 3)
static inline void jo_member_text(struct json_out *o, const char *text, size_t n)
{
    size_t skip = o->comma ? 0 : 1;
    buf_add(o->b, text + skip, n - skip);
    o->comma = false;
}
void jo_str(struct json_out *o, struct str v);
void jo_strz(struct json_out *o, const char *v); /* NULL: null */
void jo_i64(struct json_out *o, int64_t v);
void jo_f64(struct json_out *o, double v); /* shortest that reads back; not finite: null */
void jo_bool(struct json_out *o, bool v);
void jo_null(struct json_out *o);
void jo_raw(struct json_out *o, struct str json); /* verbatim JSON, as a jsonb column gives it */
void jo_uuid(struct json_out *o, const struct uuid *u);
void jo_time(struct json_out *o, int64_t wall_us); /* RFC 3339; 0: null */
