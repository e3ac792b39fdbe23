#include "worker/io/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static struct str without_padding(struct str s)
{
    for (int i = 0; i < 2 && s.n % 4 == (size_t)(i ? 3 : 0) && s.n && s.p[s.n - 1] == '='; i++)
        s.n--;
    return s;
}

ptrdiff_t base64_decoded_len(struct str s)
{
    s = without_padding(s);
    if (s.n % 4 == 1)
        return -1;
    for (size_t i = 0; i < s.n; i++)
        if (value(s.p[i]) < 0)
            return -1;
    return (ptrdiff_t)(s.n / 4 * 3 + (s.n % 4 ? s.n % 4 - 1 : 0));
}

void base64_decode(struct str s, uint8_t *out)
{
    uint32_t bits = 0;
    int have = 0;
    s = without_padding(s);
    for (size_t i = 0; i < s.n; i++) {
        bits = bits << 6 | (uint32_t)value(s.p[i]);
        have += 6;
        if (have >= 8) {
            have -= 8;
            *out++ = (uint8_t)(bits >> have);
        }
    }
}

struct str base64_encode(struct arena *a, const void *p, size_t n)
{
    const uint8_t *b = p;
    char *text = arena_alloc(a, (n + 2) / 3 * 4 + 1), *at = text;
    for (size_t i = 0; i < n; i += 3) {
        size_t k = n - i < 3 ? n - i : 3;
        uint32_t bits = (uint32_t)b[i] << 16 | (k > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (k > 2 ? b[i + 2] : 0u);
        for (size_t j = 0; j < 4; j++)
            *at++ = j <= k ? alphabet[bits >> (18 - 6 * j) & 63] : '=';
    }
    *at = 0;
    return (struct str){text, (size_t)(at - text)};
}
