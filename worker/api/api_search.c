#include "worker/api/query.h"
#include "worker/core/recall.h"

enum { OFFSET_MAX = 10000 };

/* All but the time that it took: what a cache may keep. */
static void write_found(void *arg, struct buf *b, const struct retrieve_result *found)
{
    const struct retrieve_query *q = arg;
    struct json_out o = json_out(b);
    jo_member(&o, "hits"), jo_begin(&o, '[');
    for (size_t i = 0; i < found->n; i++)
        query_write_hit(&o, q, &found->hit[i]);
    jo_end(&o, ']');
    jo_member(&o, "total_estimate"), jo_i64(&o, found->total);
    jo_member(&o, "truncated"), jo_bool(&o, found->truncated);
    jo_member(&o, "ignored_terms"), jo_raw(&o, found->ignored_terms.n ? found->ignored_terms : STR("[]"));
    jo_member(&o, "generation"), jo_i64(&o, found->generation);
    jo_member(&o, "degraded"), query_write_degraded(&o, found->degraded);
}

suspends static int find(struct request *r, struct retrieve_query *q, struct buf *out, struct err *e)
{
    const struct backends *b = &r->app->backends;
    struct retrieve_result found = {0};
    bool hit;
    if (b->cache) {
        if (recall_search(b, &r->arena, q, write_found, q, out, &hit, e))
            return -1;
        reply_header(r, STR("X-Cache"), hit ? STR("hit") : STR("miss"));
        return 0;
    }
    if (retrieve(b, &r->arena, q, &found, e))
        return -1;
    write_found(q, out, &found);
    return 0;
}

suspends int api_search(struct request *r, struct err *e)
{
    struct query_fields f = {0};
    int64_t start_ns = clock_ns();
    const struct json_member more[] = {
        {"offset", JSON_INT64, false, false, 0, OFFSET_MAX, &f.offset, NULL},
        {"highlight", JSON_BOOLEAN, false, false, 0, 0, &f.query.highlight, NULL},
        {"explain", JSON_BOOLEAN, false, false, 0, 0, &f.query.explain, NULL},
    };
    if (query_read(r, &f, more, COUNT(more), e))
        return -1;
    struct json_out o = api_reply(r, 200);
    jo_begin(&o, '{');
    if (find(r, &f.query, o.b, e))
        return -1;
    o.comma = true;
    jo_member(&o, "took_ms"), jo_f64(&o, (double)((clock_ns() - start_ns) / 1000) / 1000);
    jo_end(&o, '}');
    return 0;
}
