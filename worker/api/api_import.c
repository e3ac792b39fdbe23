#include "worker/api/upload.h"
#include <assert.h>
#include <errno.h>

/* NDJSON in, NDJSON out. The request's fiber reads and parses lines; each becomes a document on a fiber of its own, up to
 * WINDOW at a time, so that their writes share commits; the answers are put in order again and go to a spool, from which
 * another fiber sends them. So a client may read answers while it sends, or send everything before it reads, and memory
 * is bounded either way. */
enum { WINDOW = 64, WINDOW_BYTES = 16 << 20, READ_SIZE = 64 << 10 };

struct line {
    struct import *im;
    struct arena arena;
    int64_t number;
    struct upload upload;
    size_t size; /* bytes of text, against WINDOW_BYTES */
    struct buf answer;
    bool done;
};

struct import {
    struct request *r;
    struct uuid collection;
    struct line line[WINDOW]; /* a ring: [first, next) are in progress or wait for those before them */
    int64_t first, next, number;
    int dim; /* of the collection's vectors, or of the first that came; 0: nothing is known */
    size_t bytes;
    struct fiber_queue progress; /* the reader waits here for a line to end */
    struct spool answers;
    int64_t sent;
    struct fiber_queue written; /* the sender waits here for answers */
    bool collecting, complete, sender_gone;
    struct err error; /* of the sender or of the spool: ends the import */
    bool failed;
};

static void fail(struct import *im, const struct err *e)
{
    if (!im->failed)
        im->error = *e;
    im->failed = true;
}

/* ---- answers ---- */
static void answer(struct line *l, const char *status, const struct store_document *d, const struct err *e)
{
    struct json_out o = json_out(&l->answer);
    jo_begin(&o, '{');
    jo_member(&o, "line"), jo_i64(&o, l->number);
    jo_member(&o, "status"), jo_strz(&o, status);
    if (d)
        jo_member(&o, "document_id"), jo_uuid(&o, &d->id);
    if (e)
        jo_member(&o, "error"), api_write_error(&o, e);
    jo_end(&o, '}');
    buf_ch(&l->answer, '\n');
}

/* Marks a line as answered and takes everything off the ring that no earlier line holds back. The spool may wait for a
 * disk, never for a client; what ends meanwhile is taken by who is already at it. */
suspends static void line_done(struct line *l)
{
    struct import *im = l->im;
    struct err e;
    l->done = true;
    if (im->collecting)
        return;
    im->collecting = true;
    while (im->first < im->next && im->line[im->first % WINDOW].done) {
        struct line *head = &im->line[im->first % WINDOW];
        if (!im->failed && spool_add(&im->answers, head->answer.p, head->answer.n, &e))
            fail(im, &e);
        im->bytes -= head->size;
        buf_fini(&head->answer);
        arena_fini(&head->arena);
        im->first++;
    }
    im->collecting = false;
    fiber_queue_wake_all(&im->progress);
    fiber_queue_wake_all(&im->written);
}

/* Sends what the spool holds; begins the reply with the first answer, so that what fails before can still be an error. */
suspends static void send_answers(void *arg)
{
    struct import *im = arg;
    char buf[16384];
    struct err e;
    bool begun = false;
    for (;;) {
        int64_t n = im->answers.size - im->sent;
        if (n > (int64_t)sizeof buf)
            n = sizeof buf;
        if (!n && (im->complete || im->failed))
            break;
        if (!n) {
            if (fiber_queue_wait(&im->written, "import answers")) {
                err_set(&e, ERR_CANCELED, "Import interrupted");
                fail(im, &e);
                break;
            }
            continue;
        }
        if ((!begun && reply_stream(im->r, 200, NDJSON_TYPE, -1, &e)) ||
            spool_read(&im->answers, im->sent, buf, (size_t)n, &e) || reply_write(im->r, buf, (size_t)n, &e)) {
            fail(im, &e);
            break;
        }
        begun = true;
        im->sent += n;
    }
    im->sender_gone = true;
    fiber_queue_wake_all(&im->progress);
}

/* ---- one line ---- */
suspends static void store_line(void *arg)
{
    static const char *const words[] = {[STORE_CREATED] = "created",
                                        [STORE_DUPLICATE] = "duplicate",
                                        [STORE_UPDATED] = "updated",
                                        [STORE_UNCHANGED] = "unchanged"};
    struct line *l = arg;
    struct store_document d;
    struct store_job job = {0};
    enum store_created what;
    struct err e;
    if (upload_store(l->im->r, &l->arena, &l->upload, &d, &what, &job, &e)) {
        (void)api_failed("collection", l->im->r->param[0], &e);
        answer(l, "error", NULL, &e);
    } else {
        answer(l, words[what], &d, NULL);
    }
    line_done(l);
}

static struct line *find_conflict(struct import *im, const struct line *with)
{
    struct str id = with->upload.doc.external_id, text = with->upload.text;
    for (int64_t i = im->first; i < im->next; i++) {
        struct line *l = &im->line[i % WINDOW];
        if (l == with || l->done)
            continue;
        if ((id.n && str_eq(l->upload.doc.external_id, id)) || str_eq(l->upload.text, text))
            return l;
    }
    return NULL;
}

suspends static int wait_progress(struct import *im, struct err *e)
{
    int why = fiber_queue_wait(&im->progress, "import window");
    if (why)
        return err_set(e, why == -ETIMEDOUT ? ERR_DEADLINE : ERR_CANCELED, "Import interrupted");
    if (im->failed) {
        *e = im->error;
        return -1;
    }
    return 0;
}

static struct line *line_new(struct import *im, size_t size)
{
    struct line *l = &im->line[im->next++ % WINDOW];
    *l = (struct line){.im = im, .number = im->number, .size = size};
    im->bytes += size;
    return l;
}

suspends static void refuse_line(struct import *im, const struct err *why)
{
    struct line *l = line_new(im, 0);
    answer(l, "error", NULL, why);
    line_done(l);
}

/* All vectors of an import have one length, also where the collection does not say which. */
static int check_vectors(struct import *im, const struct upload *u, struct err *e)
{
    if (u->vectors.n && im->dim && u->vectors.dim != im->dim)
        return err_at(e, u->vectors_at, "The vector has %d dimensions, those of the collection %d", u->vectors.dim,
                      im->dim);
    if (u->vectors.n)
        im->dim = u->vectors.dim;
    return 0;
}

/* `text` is the caller's and copied. -1 only when the import itself cannot go on. */
suspends static int take_line(struct import *im, struct str text, struct err *e)
{
    struct str lifted;
    struct err why;
    json_t *object;
    im->number++;
    if (text.n && text.p[text.n - 1] == '\r')
        text.n--;
    if (!str_trim(text).n)
        return 0;
    while (im->next - im->first == WINDOW || (im->bytes && im->bytes + text.n > WINDOW_BYTES))
        if (wait_progress(im, e))
            return -1;
    struct line *l = line_new(im, text.n);
    l->upload.doc.collection = im->collection;
    if (api_parse(im->r, &l->arena, arena_dup(&l->arena, text), &object, &lifted, &why) ||
        upload_from_json(im->r, &l->arena, object, lifted, &l->upload, &why) || check_vectors(im, &l->upload, &why)) {
        answer(l, "error", NULL, &why);
        line_done(l);
        return 0;
    }
    l->upload.doc.by_external_id = l->upload.doc.external_id.n > 0;
    /* Lines about the same document take effect in their order. */
    while (find_conflict(im, l))
        if (wait_progress(im, &why)) {
            answer(l, "error", NULL, &why);
            line_done(l);
            *e = why;
            return -1;
        }
    if (!fiber_spawn("import line", store_line, l)) {
        err_set(&why, ERR_OVERLOADED, "Too much is going on; send this line again");
        answer(l, "error", NULL, &why);
        line_done(l);
    }
    return 0;
}

/* ---- the body ---- */
struct reader {
    struct buf pending; /* an unfinished line */
    bool skipping;      /* inside a line that is too long */
};

suspends static int take_bytes(struct import *im, struct reader *rd, struct str bytes, struct err *e)
{
    size_t max = (size_t)im->r->cfg->limits_import_line;
    while (bytes.n) {
        const char *nl = memchr(bytes.p, '\n', bytes.n);
        struct str piece = {bytes.p, nl ? (size_t)(nl - bytes.p) : bytes.n};
        bytes = str_sub(bytes, piece.n + (nl != NULL), SIZE_MAX);
        if (!rd->skipping && rd->pending.n + piece.n > max) {
            struct err why;
            im->number++;
            while (im->next - im->first == WINDOW)
                if (wait_progress(im, e))
                    return -1;
            err_set(&why, ERR_TOO_LARGE, "The line is longer than limits.import_line, %zu bytes", max);
            refuse_line(im, &why);
            rd->skipping = true;
            rd->pending.n = 0;
        }
        if (!rd->skipping) {
            buf_str(&rd->pending, piece);
            if (nl && take_line(im, buf_view(&rd->pending), e))
                return -1;
        }
        if (nl) {
            rd->skipping = false;
            rd->pending.n = 0;
        }
    }
    return 0;
}

suspends static int read_lines(struct import *im, struct err *e)
{
    struct reader rd = {0};
    char *buf = arena_alloc(&im->r->arena, READ_SIZE);
    ssize_t n = 0;
    while (!im->failed && (n = body_read(im->r, buf, READ_SIZE, e)) > 0)
        if (take_bytes(im, &rd, (struct str){buf, (size_t)n}, e)) {
            n = -1;
            break;
        }
    if (n == 0 && rd.pending.n && !rd.skipping && take_line(im, buf_view(&rd.pending), e))
        n = -1;
    buf_fini(&rd.pending);
    if (!n && im->failed) {
        *e = im->error;
        n = -1;
    }
    return n < 0 ? -1 : 0;
}

static bool media_type_ok(struct str type)
{
    static const char *const types[] = {NDJSON_TYPE, "application/ndjson", "application/jsonl",
                                        "application/x-jsonlines"};
    for (size_t i = 0; i < COUNT(types); i++)
        if (str_eqz(type, types[i]))
            return true;
    return false;
}

/* Lines in progress and the sender refer to `im`: whatever happened, they are waited for. */
suspends static int run(struct import *im, struct err *e)
{
    struct fiber *sender = fiber_spawn("import answers", send_answers, im);
    if (!sender)
        return err_set(e, ERR_OVERLOADED, "Too many requests are in progress");
    if (read_lines(im, e))
        fail(im, e);
    fiber_shield(1);
    while (im->first < im->next)
        (void)fiber_queue_wait(&im->progress, "last lines of an import");
    fiber_shield(-1);
    im->complete = true;
    fiber_queue_wake_all(&im->written);
    while (!im->sender_gone && !fiber_queue_wait(&im->progress, "last answers of an import"))
        ;
    if (!im->sender_gone)
        fiber_cancel(sender); /* as this fiber was */
    fiber_shield(1);
    while (!im->sender_gone)
        (void)fiber_queue_wait(&im->progress, "end of an import");
    fiber_shield(-1);
    if (im->failed)
        *e = im->error;
    return im->failed ? -1 : 0;
}

suspends int api_import(struct request *r, struct err *e)
{
    struct import *im;
    struct store_collection c;
    struct str type = request_media_type(r);
    if (!media_type_ok(type))
        return err_set(e, ERR_MEDIA_TYPE, "An import is sent as application/x-ndjson, not '%.80s'",
                       arena_dup(&r->arena, type).p);
    im = arena_zalloc(&r->arena, sizeof *im);
    im->r = r;
    if (api_collection_id(r, r->param[0], &im->collection, e))
        return -1;
    if (STORE_CALL(r->app->store, collection_get, &r->arena, &im->collection, &c, e))
        return api_failed("collection", r->param[0], e);
    im->dim = given_vectors_dim(&r->app->backends, &c);
    fiber_queue_init(&im->progress);
    fiber_queue_init(&im->written);
    spool_init(&im->answers, &r->arena);
    fiber_set_deadline(fiber_self(), 0); /* as long as lines keep coming */
    if (run(im, e))
        return -1;
    if (!im->sent)
        reply_begin(r, 200, NDJSON_TYPE);
    return 0;
}
