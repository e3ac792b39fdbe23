/* UUIDs (RFC 9562). Objects carry version 7: 48 bits of milliseconds, then 12 bits that subdivide the millisecond
 * (section 6.2, method 3), then random bits. Within a process they strictly increase, so the order of ids is the
 * order of creation, and the creation time of an object is read from its id. */
#pragma once
#include "common/str.h"

struct uuid {
    uint8_t b[16];
};

#define UUID_TEXT_LEN 36

struct uuid uuid_v7(void);                       /* now */
struct uuid uuid_v7_at(int64_t wall_us);         /* for imports and tests: not monotonic */
int64_t uuid_time_us(const struct uuid *u);      /* of a version 7; microseconds since 1970 */
void uuid_text(const struct uuid *u, char *out); /* writes UUID_TEXT_LEN bytes, lower case, no NUL */
bool uuid_parse(struct str s, struct uuid *out); /* the 36-character form, any version, either case */
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}
static inline bool uuid_is_zero(const struct uuid *u)
{
    return uuid_eq(u, &(struct uuid){{0}});
}
