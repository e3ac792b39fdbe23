#include "common/log_limit.h"
#include "common/clock.h"
#include <stdio.h>

static void tell(struct log_limit *l, int64_t now_ns, char *told)
{
    told[0] = 0;
    if (l->left_out)
        snprintf(told, LOG_LIMIT_TEXT, " and %llu more in the last %.1f s", (unsigned long long)l->left_out,
                 (double)(now_ns - l->since_ns) / SEC);
    l->since_ns = now_ns;
    l->left_out = 0;
}

bool log_limit(struct log_limit *l, int64_t now_ns, char *told)
{
    if (l->since_ns && now_ns - l->since_ns < SEC) {
        l->left_out++;
        return false;
    }
    tell(l, now_ns, told);
    return true;
}

bool log_limit_rest(struct log_limit *l, int64_t now_ns, char *told)
{
    if (!l->left_out || now_ns - l->since_ns < 2 * SEC) /* the next line, if there is one, comes before */
        return false;
    tell(l, now_ns, told);
    return true;
}
