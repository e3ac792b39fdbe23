/* What a server that calls itself Redis may send, in one piece and byte by byte: the same replies and the same outcome. And
 * the URL by which it is named. */
#include "worker/io/redis_impl.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void show(struct buf *out, const struct redis_value *v)
{
    buf_ch(out, (char)('a' + v->type));
    if (v->type == REDIS_INTEGER)
        buf_i64(out, v->i);
    if (v->type == REDIS_STRING || v->type == REDIS_ERROR)
        buf_str(out, v->s);
    for (size_t i = 0; v->type == REDIS_ARRAY && i < v->n; i++)
        show(out, &v->v[i]);
}

static void run(struct buf *out, struct str text, size_t step)
{
    redisReader *reader = redis_reader_new();
    struct redis_reply *reply;
    struct arena a = {0};
    struct err e;
    int rc = 0;
    for (size_t at = 0; at < text.n && rc == 0; at += step) {
        rc = redis_reader_feed(reader, str_sub(text, at, step), &e);
        while (rc == 0 && (rc = redis_reader_next(reader, &reply, &e)) == 0 && reply) {
            struct redis_value copy;
            redis_copy(&a, &reply->value, &copy);
            redis_reply_free(reply);
            show(out, &copy);
        }
    }
    assert(rc == 0 || e.code == ERR_NOT_READY);
    buf_ch(out, rc ? 'x' : '.');
    arena_fini(&a);
    redisReaderFree(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = {0}, bytes = {0};
    struct redis_url url;
    struct err e = {0};
    if (size > 4096)
        return 0;
    char *copy = malloc(size + 7);
    assert(copy);
    memcpy(copy, "redis:", 6);
    memcpy(copy + 6, data, size);
    copy[size + 6] = 0;
    run(&whole, (struct str){copy + 6, size}, size + 1);
    run(&bytes, (struct str){copy + 6, size}, 1);
    assert(str_eq(buf_view(&whole), buf_view(&bytes)));
    const struct config cfg = {.cache_url = copy, .cache_password = ""};
    if (strncmp(copy + 6, "//", 2) == 0 && redis_url_parse(&cfg, &url, &e) < 0)
        assert(e.code == ERR_VALIDATION && e.msg[0]);
    buf_fini(&whole);
    buf_fini(&bytes);
    free(copy);
    return 0;
}
