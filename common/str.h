/* Slices: a pointer and a length, not NUL-terminated, never owning. A slice lives as long as what it points
 * into: a literal, an arena, a request. Everything that comes from outside is handled as a slice. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit)   ((struct str){"" lit, sizeof(lit) - 1})
#define STR_FMT    "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct str str_of(const char *z)
{
    return (struct str){z, z ? strlen(z) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_eqz(struct str a, const char *z)
{
    return str_eq(a, str_of(z));
}

static inline struct str str_sub(struct str s, size_t from, size_t n)
{
    if (from > s.n)
        from = s.n;
    return (struct str){s.p ? s.p + from : s.p, n < s.n - from ? n : s.n - from};
}

/* ASCII only, as protocol tokens are. */
bool str_ieq(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
struct str str_trim(struct str s); /* SP and HTAB on both sides */

/* Splits at the first `sep`: returns what stands before it and moves `*rest` behind it (to empty if absent). */
struct str str_cut(struct str *rest, char sep);

/* Whole slice as a decimal number; false on anything else, on overflow and on an empty slice. */
bool str_to_u64(struct str s, uint64_t *out);
bool str_to_i64(struct str s, int64_t *out);

/* Length of the longest prefix that is valid UTF-8 (RFC 3629: no surrogates, no overlong forms). */
size_t str_utf8_valid_prefix(struct str s);
static inline bool str_is_utf8(struct str s)
{
    return str_utf8_valid_prefix(s) == s.n;
}
/* Every byte of `z` that belongs to no valid character becomes '?'. */
void str_utf8_fix(char *z);
void str_utf8_end(char *z, size_t cap); /* the same with one that may not end within its `cap` bytes: it does then */

/* Copies at most cap-1 bytes and terminates with NUL; returns the copied length. `cap` > 0. */
size_t str_copyz(char *dst, size_t cap, struct str s);

/* Edit distance (Damerau, bounded by 8), for "did you mean". */
int str_distance(const char *a, const char *b);
