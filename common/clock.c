#include "common/clock.h"
#include <stdbool.h>
#include <string.h>
#include <time.h>

#define ASLEEP_NS SEC

static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SEC + t.tv_nsec;
}

int64_t clock_gap(int64_t due, int64_t now)
{
    int64_t late = due ? now - due : 0;
    return late >= ASLEEP_NS ? late : 0;
}

int64_t clock_wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* Days since 1970-01-01 <-> civil date, proleptic Gregorian (Howard Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms"). Cheaper than gmtime_r, and hot replies carry two stamps each. */
static void civil(int64_t z, int *y, int *m, int *d)
{
    z += 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    *d = (int)(doy - (153 * mp + 2) / 5 + 1);
    *m = (int)(mp < 10 ? mp + 3 : mp - 9);
    *y = (int)((int64_t)yoe + era * 400 + (*m <= 2));
}

static int64_t days_from_civil(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (unsigned)(m > 2 ? m - 3 : m + 9) + 2) / 5 + (unsigned)d - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

static bool day_valid(int y, int m, int d)
{
    static const char days_in[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return m >= 1 && m <= 12 && d >= 1 && d <= days_in[m - 1] - (m == 2 && !leap);
}

static void put(char *p, int v, int width)
{
    for (int i = width - 1; i >= 0; i--, v /= 10)
        p[i] = (char)('0' + v % 10);
}

void clock_rfc3339(char *out, int64_t us)
{
    int64_t day = us / 86400000000LL, rest = us % 86400000000LL;
    int y, m, d;
    if (rest < 0)
        rest += 86400000000LL, day--;
    civil(day, &y, &m, &d);
    int s = (int)(rest / 1000000);
    memcpy(out, "0000-00-00T00:00:00.000000Z", CLOCK_RFC3339_LEN);
    put(out, y, 4);
    put(out + 5, m, 2);
    put(out + 8, d, 2);
    put(out + 11, s / 3600, 2);
    put(out + 14, s / 60 % 60, 2);
    put(out + 17, s % 60, 2);
    put(out + 20, (int)(rest % 1000000), 6);
}

/* Reads exactly `width` digits; -1 if one is none. */
static int digits(const char *p, int width)
{
    int v = 0;
    for (int i = 0; i < width; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        v = v * 10 + (p[i] - '0');
    }
    return v;
}

int clock_parse_rfc3339(const char *p, size_t n, int64_t *out)
{
    if (n < 20 || p[4] != '-' || p[7] != '-' || (p[10] != 'T' && p[10] != 't' && p[10] != ' ') || p[13] != ':' ||
        p[16] != ':')
        return -1;
    int y = digits(p, 4), mo = digits(p + 5, 2), d = digits(p + 8, 2);
    int h = digits(p + 11, 2), mi = digits(p + 14, 2), s = digits(p + 17, 2);
    if (y < 0 || !day_valid(y, mo, d) || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 60)
        return -1;
    size_t i = 19;
    int64_t frac = 0;
    if (p[i] == '.') {
        int scale = 100000;
        size_t first = ++i;
        for (; i < n && p[i] >= '0' && p[i] <= '9'; i++, scale /= 10)
            frac += (int64_t)(p[i] - '0') * scale;
        if (i == first)
            return -1;
    }
    int64_t offset = 0;
    if (i + 1 == n && (p[i] == 'Z' || p[i] == 'z')) {
        offset = 0;
    } else if (i + 6 == n && (p[i] == '+' || p[i] == '-') && p[i + 3] == ':') {
        int oh = digits(p + i + 1, 2), om = digits(p + i + 4, 2);
        if (oh < 0 || oh > 23 || om < 0 || om > 59)
            return -1;
        offset = (p[i] == '-' ? -1 : 1) * (int64_t)(oh * 3600 + om * 60);
    } else {
        return -1;
    }
    *out = (days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + s - offset) * 1000000 + frac;
    return 0;
}

void clock_http_date(char *out, int64_t us)
{
    int64_t sec = us / 1000000, day = sec / 86400;
    int y, m, d, s = (int)(sec % 86400);
    civil(day, &y, &m, &d);
    memcpy(out, "Sun, 00 Jan 0000 00:00:00 GMT", CLOCK_HTTP_DATE_LEN);
    memcpy(out, days[(day + 4) % 7], 3);
    put(out + 5, d, 2);
    memcpy(out + 8, months[m - 1], 3);
    put(out + 12, y, 4);
    put(out + 17, s / 3600, 2);
    put(out + 20, s / 60 % 60, 2);
    put(out + 23, s % 60, 2);
}

int clock_parse_http_date(const char *p, size_t n, int64_t *out)
{
    if (n != CLOCK_HTTP_DATE_LEN || p[3] != ',' || memcmp(p + 25, " GMT", 4) != 0)
        return -1;
    int m = -1, d = digits(p + 5, 2), y = digits(p + 12, 4);
    int h = digits(p + 17, 2), mi = digits(p + 20, 2), s = digits(p + 23, 2);
    for (int i = 0; i < 12; i++)
        if (memcmp(p + 8, months[i], 3) == 0)
            m = i + 1;
    if (y < 0 || !day_valid(y, m, d) || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 60)
        return -1;
    *out = (days_from_civil(y, m, d) * 86400 + h * 3600 + mi * 60 + s) * 1000000;
    return 0;
}
