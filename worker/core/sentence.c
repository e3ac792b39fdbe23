#include "worker/core/sentence.h"

static bool space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

/* Does a sentence end with the punctuation at `at`? *end: behind it and its closing quotes, in any case. */
static bool sentence_ends(struct str s, size_t at, size_t *end)
{
    static const char *const wide[] = {"。", "！", "？", "．"};
    *end = at + 1;
    for (size_t i = 0; i < 4; i++)
        if (s.n - at >= 3 && memcmp(s.p + at, wide[i], 3) == 0) {
            *end = at + 3;
            return true;
        }
    if (!memchr(".!?", s.p[at], 3))
        return false;
    size_t i = at + 1;
    while (i < s.n && memchr(".!?\"')]", s.p[i], 7))
        i++;
    *end = i;
    if (i == s.n)
        return true;
    if (!space(s.p[i]))
        return false;
    while (i < s.n && space(s.p[i]))
        i++;
    if (i < s.n && s.p[i] >= 'a' && s.p[i] <= 'z')
        return false; /* an abbreviation */
    bool capital = at >= 1 && s.p[at - 1] >= 'A' && s.p[at - 1] <= 'Z';
    bool initial = capital && (at == 1 || s.p[at - 2] == ' ' || s.p[at - 2] == '.');
    return !(s.p[at] == '.' && initial);
}

size_t sentence_next(struct str s, bool lines, size_t max)
{
    bool whole = s.n <= max;
    size_t last_space = 0, end;
    s = str_sub(s, 0, max);
    for (size_t i = 0; i < s.n; i = end) {
        bool ends = lines ? s.p[i] == '\n' : sentence_ends(s, i, &end);
        if (lines)
            end = i + 1;
        if (ends && end < s.n)
            return end;
        if (space(s.p[i]))
            last_space = i;
    }
    if (whole)
        return s.n;
    if (last_space > s.n / 2)
        return last_space;
    for (size_t back = 0; back < 4 && back < s.n; back++) /* where the last character begins, if it is cut */
        if (((unsigned char)s.p[s.n - 1 - back] & 0xc0) != 0x80)
            return str_utf8_valid_prefix(str_sub(s, s.n - 1 - back, s.n)) ? s.n : s.n - 1 - back;
    return s.n;
}
