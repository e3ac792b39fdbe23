/* hiredis' reader with our values: each reply lives in one arena, which an array's elements share. */
#include "worker/io/redis_impl.h"
#include <assert.h>
#include <stdlib.h>

/* A value may be as large as cache.max_value can be set: another server that shares it may have it larger. */
enum { ELEMENTS_MAX = 1 << 20, TEXT_MAX = 200, REPLY_MAX = (64 << 20) + 4096 };

static struct redis_reply *reply_of(const redisReadTask *t)
{
    const redisReadTask *root = t;
    while (root->parent)
        root = root->parent;
    return root->obj;
}

/* The value that a task fills: the whole reply's, or an element of the array that it belongs to. The reader only looks at
 * `obj` of arrays, which is how their elements find them: so the root's is the reply, others are values. */
static struct redis_value *place(const redisReadTask *t, struct redis_reply **root)
{
    if (!t->parent) {
        *root = calloc(1, sizeof **root);
        if (!*root)
            abort();
        return &(*root)->value;
    }
    *root = reply_of(t);
    struct redis_value *array = t->parent->parent ? t->parent->obj : &(*root)->value;
    return &array->v[t->idx];
}

static void *result(const redisReadTask *t, struct redis_reply *root, struct redis_value *v)
{
    return t->parent ? (void *)v : (void *)root;
}

static void *make_string(const redisReadTask *t, char *p, size_t n)
{
    struct redis_reply *root;
    struct redis_value *v = place(t, &root);
    v->type = t->type == REDIS_REPLY_ERROR ? REDIS_ERROR : REDIS_STRING;
    if (arena_size(&root->a) > REPLY_MAX)
        return NULL;
    v->s = arena_dup(&root->a, (struct str){p, n});
    return result(t, root, v);
}

static void *make_array(const redisReadTask *t, int n)
{
    struct redis_reply *root;
    struct redis_value *v = n > ELEMENTS_MAX ? NULL : place(t, &root);
    if (!v || arena_size(&root->a) > REPLY_MAX)
        return NULL; /* the reader calls it out of memory, and drops the reply */
    v->type = REDIS_ARRAY;
    v->n = n > 0 ? (size_t)n : 0;
    v->v = arena_zalloc(&root->a, (v->n + 1) * sizeof *v->v);
    return result(t, root, v);
}

static void *make_integer(const redisReadTask *t, long long i)
{
    struct redis_reply *root;
    struct redis_value *v = place(t, &root);
    v->type = REDIS_INTEGER;
    v->i = i;
    return result(t, root, v);
}

static void *make_nil(const redisReadTask *t)
{
    struct redis_reply *root;
    struct redis_value *v = place(t, &root);
    v->type = REDIS_NIL;
    return result(t, root, v);
}

void redis_reply_free(struct redis_reply *r)
{
    if (r)
        arena_fini(&r->a);
    free(r);
}

static void free_reply(void *reply)
{
    redis_reply_free(reply);
}

redisReader *redis_reader_new(void)
{
    static redisReplyObjectFunctions functions = {make_string, make_array, make_integer, make_nil, free_reply};
    redisReader *reader = redisReaderCreateWithFunctions(&functions);
    if (!reader)
        abort();
    return reader;
}

static int broken(const redisReader *reader, struct err *e)
{
    err_set(e, ERR_NOT_READY, "the cache sent something that is no reply");
    return err_log(e, "Redis: %s", reader->errstr);
}

int redis_reader_feed(redisReader *reader, struct str bytes, struct err *e)
{
    if (reader->len - reader->pos + bytes.n > REPLY_MAX) {
        err_set(e, ERR_NOT_READY, "the cache's reply is too large");
        return err_log(e, "Redis: a reply of more than %d bytes", (int)REPLY_MAX);
    }
    return redisReaderFeed(reader, bytes.p, bytes.n) == REDIS_OK ? 0 : broken(reader, e);
}

int redis_reader_next(redisReader *reader, struct redis_reply **out, struct err *e)
{
    void *reply = NULL;
    if (redisReaderGetReply(reader, &reply) != REDIS_OK)
        return broken(reader, e);
    *out = reply;
    return 0;
}

struct str redis_reply_text(const struct redis_value *v)
{
    return v->type == REDIS_STRING || v->type == REDIS_ERROR ? str_sub(v->s, 0, TEXT_MAX) : STR("an unexpected reply");
}

void redis_copy(struct arena *a, const struct redis_value *from, struct redis_value *to)
{
    struct redis_value v = *from;
    if (v.type == REDIS_STRING || v.type == REDIS_ERROR)
        v.s = arena_dup(a, from->s);
    if (v.type == REDIS_ARRAY) {
        v.v = arena_alloc(a, (v.n + 1) * sizeof *v.v);
        for (size_t i = 0; i < v.n; i++)
            redis_copy(a, &from->v[i], &v.v[i]);
    }
    *to = v;
}

void redis_command(struct buf *out, const struct str *argv, size_t n)
{
    enum { ARGS = 512 };
    const char *p[ARGS];
    size_t length[ARGS];
    char *text;
    assert(n <= ARGS);
    for (size_t i = 0; i < n; i++) {
        p[i] = argv[i].p ? argv[i].p : "";
        length[i] = argv[i].n;
    }
    int size = redisFormatCommandArgv(&text, (int)n, p, length);
    if (size < 0)
        abort();
    buf_add(out, text, (size_t)size);
    redisFreeCommand(text);
}
