#include "common/uuid.h"
#include "common/clock.h"
#include <assert.h>
#include <sys/random.h>
#include <unistd.h>

/* Random bits for 64 ids at a time; refilled after a fork so that two workers never share them. */
static struct {
    uint8_t bytes[64 * 8];
    size_t used;
    pid_t pid;
    uint64_t last; /* last stamp given out: microseconds * 4096 / 1000, monotonic */
} pool;

static void random8(uint8_t *out)
{
    if (pool.pid != getpid() || pool.used == sizeof pool.bytes || pool.pid == 0) {
        size_t n = 0;
        while (n < sizeof pool.bytes) {
            ssize_t r = getrandom(pool.bytes + n, sizeof pool.bytes - n, 0);
            if (r > 0)
                n += (size_t)r;
        }
        pool.used = 0;
        pool.pid = getpid();
    }
    memcpy(out, pool.bytes + pool.used, 8);
    pool.used += 8;
}

/* `stamp`: milliseconds in the upper bits, 12 bits of fraction below. */
static struct uuid build(uint64_t stamp)
{
    struct uuid u;
    uint64_t ms = stamp >> 12;
    for (int i = 0; i < 6; i++)
        u.b[i] = (uint8_t)(ms >> (40 - 8 * i));
    random8(u.b + 8);
    u.b[6] = (uint8_t)(0x70 | (stamp >> 8 & 0x0f));
    u.b[7] = (uint8_t)stamp;
    u.b[8] = (uint8_t)(0x80 | (u.b[8] & 0x3f));
    return u;
}

static uint64_t stamp_of(int64_t us)
{
    uint64_t ms = (uint64_t)us / 1000, sub = (uint64_t)us % 1000;
    return ms << 12 | (sub * 4096 + 999) / 1000; /* rounded up, so that uuid_time_us() gives `us` back */
}

struct uuid uuid_v7(void)
{
    uint64_t stamp = stamp_of(clock_wall_us());
    if (stamp <= pool.last)
        stamp = pool.last + 1;
    pool.last = stamp;
    return build(stamp);
}

struct uuid uuid_v7_at(int64_t us)
{
    return build(stamp_of(us));
}

int64_t uuid_time_us(const struct uuid *u)
{
    uint64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | u->b[i];
    uint64_t sub = (uint64_t)(u->b[6] & 0x0f) << 8 | u->b[7];
    return (int64_t)(ms * 1000 + sub * 1000 / 4096);
}

void uuid_text(const struct uuid *u, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[u->b[i] >> 4];
        *out++ = hex[u->b[i] & 15];
    }
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(struct str s, struct uuid *out)
{
    struct uuid u;
    size_t k = 0;
    if (s.n != UUID_TEXT_LEN)
        return false;
    for (size_t i = 0; i < UUID_TEXT_LEN;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (s.p[i++] != '-')
                return false;
            continue;
        }
        int hi = nibble(s.p[i]), lo = nibble(s.p[i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        u.b[k++] = (uint8_t)(hi << 4 | lo);
        i += 2;
    }
    *out = u;
    return true;
}
