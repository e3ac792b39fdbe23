/* The SQLite product of the store, private to sqlite_*.c. One connection a process; SQLite answers at once, so a verb
 * runs to its end without parking, except where another process holds the lock it needs: then the fiber sleeps and
 * the verb is tried again. Reads run on the caller's fiber. Writes queue up: a writer fiber runs all that came in one
 * turn of the loop in one transaction, each under a savepoint, so that a commit (an fsync) serves many and a failing one
 * undoes only itself. No transaction and no statement is open while a fiber waits. */
#pragma once
#include "common/scoreboard.h"
#include "worker/store/product.h"
#include <sqlite3.h>

struct stmt { /* a cached statement; see stmt_get() */
    sqlite3_stmt *st;
    struct sqlite *db;
    char *sql;
    uint64_t hash;
    int64_t used;  /* turn of the cache's clock */
    int bind, col; /* of the next bind_*() and col_*() */
    int rc;        /* why there is no `st` */
};

enum { SQLITE_STMTS = 128 };

struct sqlite {
    struct store store; /* must be first */
    const struct config *cfg;
    char *path;
    sqlite3 *h;     /* NULL: not open */
    bool unchanged; /* only a file that is there and has our schema is opened */
    bool migrated;  /* the schema was found fit since it was opened */
    bool busy;      /* the last call failed for a lock that somebody else holds */
    struct err broken;
    int64_t broken_ns; /* when opening failed */

    struct stmt *stmts[SQLITE_STMTS];
    int64_t clock;
    struct stmt none; /* what stmt_get() gives when preparing fails */

    struct list writes; /* struct sqlite_write, waiting */
    size_t n_writes;
    struct fiber *writer;

    struct sqlite_hits *hits;    /* where candidates go while a search runs */
    const struct filter *filter; /* what ragd_filter() applies */
};

static inline struct sqlite *sqlite_of(struct store *s)
{
    return (struct sqlite *)(void *)s;
}

/* ---- sqlite.c ---- */
/* Opens and migrates the file if that has not been done. */
suspends must_use int sqlite_ready(struct sqlite *db, struct err *e);

/* ---- sqlite_stmt.c: statements ---- */
/* A prepared statement, reset. Errors stick: binding to a failed one does nothing, and stmt_row() reports it. */
struct stmt *stmt_get(struct sqlite *db, const char *sql);
void stmt_forget_all(struct sqlite *db);
void bind_i64(struct stmt *s, int64_t v);
void bind_str(struct stmt *s, struct str v); /* what is bound must stay until the statement ends */
void bind_opt(struct stmt *s, struct str v); /* "" is NULL */
void bind_blob(struct stmt *s, struct str v);
void bind_uuid(struct stmt *s, const struct uuid *v); /* NULL is NULL */
void bind_sha(struct stmt *s, const struct sha256 *v);
/* 1: a row, read it with col_*(); 0: the end; -1: error. At 0 and -1 the statement has ended. */
must_use int stmt_row(struct stmt *s, struct err *e);
must_use int stmt_run(struct stmt *s, struct err *e); /* to the end: 0 or -1 */
void stmt_end(struct stmt *s);                        /* before its last row */
int64_t col_i64(struct stmt *s);
struct str col_str(struct stmt *s, struct arena *a); /* copied; NULL gives "" */
struct str col_peek(struct stmt *s);                 /* until the next row */
bool col_uuid(struct stmt *s, struct uuid *out);     /* false: NULL, and zero */
void col_sha(struct stmt *s, struct sha256 *out);
must_use int sqlite_exec(struct sqlite *db, const char *sql, struct err *e);
/* Fills `e` from SQLite's code. Returns -1. */
int sqlite_fail(struct sqlite *db, int rc, struct err *e);

/* ---- sqlite_write.c: waiting for locks, group commit ---- */
struct sqlite_retry {
    int tries;
    int64_t since;
};
/* After a failure: true when it was a lock; it has slept, try again. */
suspends bool sqlite_again(struct sqlite *db, struct sqlite_retry *r, struct err *e);
/* A read, tried until no lock stands in the way. */
#define SQLITE_TRY(db, e, call)                          \
    __extension__({                                      \
        struct sqlite_retry retry_ = {0};                \
        int rc_;                                         \
        STAT_ADD(store_calls_total, 1);                  \
        do                                               \
            rc_ = sqlite_ready(db, e) < 0 ? -1 : (call); \
        while (rc_ < 0 && sqlite_again(db, &retry_, e)); \
        rc_;                                             \
    })
/* The same of a call with many statements, which all see the same state. SQLite locks the file once, not for each. The
 * call does not park. */
#define SQLITE_TRY_MANY(db, e, call) SQLITE_TRY(db, e, sqlite_begin(db, e) < 0 ? -1 : sqlite_end(db, call))
must_use int sqlite_begin(struct sqlite *db, struct err *e);
int sqlite_end(struct sqlite *db, int rc); /* returns rc */
/* Runs `fn` inside the next transaction and returns once it is durable. `fn` does not park, may run more than once,
 * and writes its results through `arg`. */
suspends must_use int sqlite_write(struct sqlite *db, int (*fn)(struct sqlite *, void *, struct err *), void *arg,
                                   struct err *e);

/* ---- the verbs, by file; see store.h ---- */
int sqlite_collection_create(struct store *, struct arena *, const struct store_collection *, struct store_collection *,
                             struct err *);
int sqlite_collection_get(struct store *, struct arena *, const struct uuid *, struct store_collection *, struct err *);
int sqlite_collection_by_name(struct store *, struct arena *, struct str, struct store_collection *, struct err *);
int sqlite_collection_list(struct store *, struct arena *, const struct store_page *, struct store_collection **,
                           size_t *, bool *, struct err *);
int sqlite_collection_patch(struct store *, struct arena *, const struct uuid *, const struct store_collection_patch *,
                            int64_t, struct store_collection *, struct err *);
int sqlite_collection_delete(struct store *, struct arena *, const struct uuid *, int64_t, struct store_job *,
                             struct err *);
int sqlite_collection_purge(struct store *, const struct uuid *, int, int64_t *, struct err *);

int sqlite_file_put_part(struct store *, const struct sha256 *, int, struct str, struct err *);
int sqlite_file_get_part(struct store *, struct arena *, const struct sha256 *, int, struct str *, struct err *);
int sqlite_file_sweep(struct store *, int, int64_t *, struct err *);

int sqlite_document_create(struct store *, struct arena *, const struct store_document_new *, struct store_document *,
                           enum store_created *, struct store_job *, struct err *);
int sqlite_document_get(struct store *, struct arena *, const struct uuid *, struct store_document *, struct err *);
int sqlite_document_by_external_id(struct store *, struct arena *, const struct uuid *, struct str,
                                   struct store_document *, struct err *);
int sqlite_document_list(struct store *, struct arena *, const struct store_document_query *, struct store_document **,
                         size_t *, bool *, struct err *);
int sqlite_document_patch(struct store *, struct arena *, const struct uuid *, const struct store_document_patch *,
                          int64_t, struct store_document *, struct err *);
int sqlite_document_delete(struct store *, const struct uuid *, int64_t, struct err *);
int sqlite_document_versions(struct store *, struct arena *, const struct uuid *, struct store_version **, size_t *,
                             struct err *);
int sqlite_document_text(struct store *, struct arena *, const struct uuid *, struct str *, struct err *);
int sqlite_document_chunks(struct store *, struct arena *, const struct uuid *, int, int, struct store_chunk **,
                           size_t *, struct err *);
int sqlite_chunk_get(struct store *, struct arena *, const struct uuid *, struct store_chunk *, struct err *);
int sqlite_document_reprocess(struct store *, struct arena *, const struct uuid *, struct store_job *, struct err *);
int sqlite_document_match(struct store *, struct arena *, const struct uuid *, const struct filter *, int64_t *,
                          int64_t **, size_t *, struct err *);
int sqlite_document_delete_matching(struct store *, const struct uuid *, const struct filter *, int, int64_t *,
                                    struct err *);
int sqlite_document_count_matching(struct store *, const struct uuid *, const struct filter *, int64_t *, struct err *);

int sqlite_search_candidates(struct store *, struct arena *, const struct store_collection *, const struct str *,
                             const bool *, size_t, size_t, struct store_candidates *, struct err *);
int sqlite_search_counts(struct store *, const struct store_collection *, const struct str *, size_t, int64_t *, bool *,
                         struct err *);
int sqlite_search_fetch(struct store *, struct arena *, const int64_t *, size_t, struct store_chunk *,
                        struct store_document *, struct err *);

int sqlite_job_create(struct store *, struct arena *, struct str, const struct uuid *, struct str, struct store_job *,
                      struct err *);
int sqlite_job_get(struct store *, struct arena *, const struct uuid *, struct store_job *, struct err *);
int sqlite_job_list(struct store *, struct arena *, const struct store_job_query *, struct store_job **, size_t *,
                    bool *, struct err *);
int sqlite_job_cancel(struct store *, struct arena *, const struct uuid *, struct store_job *, struct err *);
int sqlite_job_retry(struct store *, struct arena *, const struct uuid *, struct store_job *, struct err *);
int sqlite_job_counts(struct store *, int64_t[JOB_STATE_COUNT], struct err *);
int sqlite_job_claim(struct store *, struct arena *, const struct uuid *, const struct uuid *, int64_t,
                     struct store_job *, struct err *);
int sqlite_job_lease(struct store *, struct arena *, const struct uuid *, int64_t, size_t, struct store_job *, size_t *,
                     struct err *);
int sqlite_job_renew(struct store *, const struct uuid *, const struct uuid *, int64_t, enum document_state, struct str,
                     int64_t, int64_t, bool *, struct err *);
int sqlite_job_commit_index(struct store *, const struct uuid *, const struct uuid *, const struct store_index_commit *,
                            struct err *);
int sqlite_job_finish(struct store *, const struct uuid *, const struct uuid *, enum job_state, struct str, struct str,
                      struct str, int, struct err *);
int sqlite_job_put_back(struct store *, const struct uuid *, const struct uuid *, int64_t, bool, struct str, struct str,
                        struct str, struct err *);

int sqlite_documents_by_no(struct store *, struct arena *, const int64_t *, size_t, struct store_document *,
                           struct err *);
int sqlite_document_span(struct store *, struct arena *, int64_t, int64_t, size_t, struct str *, struct err *);
int sqlite_collection_set_embedder(struct store *, const struct uuid *, struct str, int, struct err *);
int sqlite_shadow_begin(struct store *, struct arena *, const struct uuid *, struct str, int, struct store_collection *,
                        struct err *);
int sqlite_shadow_built(struct store *, const struct uuid *, int64_t, struct err *);
int sqlite_generation_flip(struct store *, struct arena *, const struct uuid *, int64_t, struct store_collection *,
                           struct err *);
int sqlite_generation_drop(struct store *, const struct uuid *, int64_t, struct err *);
int sqlite_embeddings_get(struct store *, struct arena *, struct str, int *, int64_t, int, const struct sha256 *,
                          size_t, const float **, struct err *);
int sqlite_embeddings_put(struct store *, struct str, int, const struct sha256 *, size_t, const float *, struct err *);
int sqlite_embeddings_sweep(struct store *, struct sha256 *, int, int64_t *, struct err *);
int sqlite_document_embedded(struct store *, int64_t, struct err *);
int sqlite_outbox_take(struct store *, struct arena *, int64_t, int, struct store_outbox **, size_t *, struct err *);
int sqlite_outbox_done(struct store *, const int64_t *, size_t, struct err *);
int sqlite_outbox_add(struct store *, const struct store_outbox *, size_t, struct err *);
int sqlite_outbox_count(struct store *, int64_t *, struct err *);
int sqlite_outbox_hasten(struct store *, int64_t, int, int64_t *, struct err *);

int sqlite_eval_set_create(struct store *, struct arena *, const struct store_eval_set *, int64_t,
                           struct store_eval_set *, struct err *);
int sqlite_eval_set_get(struct store *, struct arena *, const struct uuid *, struct str, struct store_eval_set *,
                        struct err *);
int sqlite_eval_set_list(struct store *, struct arena *, const struct store_page *, struct store_eval_set **, size_t *,
                         bool *, struct err *);
int sqlite_eval_set_delete(struct store *, const struct uuid *, struct err *);
int sqlite_eval_result_put(struct store *, const struct uuid *, const struct uuid *, struct str, int, struct err *);
int sqlite_eval_result_get(struct store *, struct arena *, const struct uuid *, struct str *, struct err *);

int sqlite_webhook_create(struct store *, struct arena *, const struct store_webhook *, int64_t, struct store_webhook *,
                          struct err *);
int sqlite_webhook_get(struct store *, struct arena *, const struct uuid *, struct store_webhook *, struct err *);
int sqlite_webhook_list(struct store *, struct arena *, const struct store_page *, struct store_webhook **, size_t *,
                        bool *, struct err *);
int sqlite_webhook_patch(struct store *, struct arena *, const struct uuid *, const struct store_webhook_patch *,
                         int64_t, struct store_webhook *, struct err *);
int sqlite_webhook_delete(struct store *, const struct uuid *, int64_t, struct err *);
int sqlite_delivery_create(struct store *, struct arena *, const struct uuid *, const struct store_delivery *,
                           struct store_delivery *, struct err *);
int sqlite_delivery_list(struct store *, struct arena *, const struct uuid *, const struct uuid *, int,
                         struct store_delivery **, size_t *, bool *, struct err *);
int sqlite_delivery_take(struct store *, struct arena *, int64_t, int, int, struct store_delivery **, size_t *,
                         struct err *);
int sqlite_delivery_end(struct store *, const struct store_delivery_end *, bool *, struct err *);
int sqlite_delivery_sweep(struct store *, int64_t, int64_t, int, int64_t *, int64_t *, struct err *);
int sqlite_delivery_counts(struct store *, int64_t[DELIVERY_STATE_COUNT], struct err *);

int sqlite_idempotency_begin(struct store *, struct arena *, const struct store_idempotency *, bool *,
                             struct store_idempotency *, struct err *);
int sqlite_idempotency_end(struct store *, const struct store_idempotency *, struct err *);

/* ---- shared between files; none of these parks ---- */
#define NO_COLLECTION "No such collection"
#define NO_DOCUMENT   "No such document"
#define NO_JOB        "No such job"
#define NO_WEBHOOK    "No such webhook"
/* ERR_VERSION unless `want` is 0 or `have`. */
must_use int version_is(int64_t have, int64_t want, struct err *e);
/* Number of a collection that is not deleted; ERR_NOT_FOUND. */
must_use int collection_no(struct sqlite *db, const struct uuid *id, int64_t *no, struct err *e);

must_use int webhook_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_webhook *out,
                           struct err *e);

must_use int collection_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_collection *out,
                              struct err *e);

#define DOCUMENT_COLUMNS                                                                                       \
    "d.no, d.id, c.id, d.external_id, d.filename, d.title, d.mime, d.language, d.metadata, d.tags, d.sha256, " \
    "d.bytes, d.pages, d.chunks, d.tokens, d.state, d.progress_done, d.progress_total, d.error_code, "         \
    "d.error_stage, d.error_message, d.error_page, d.version, d.content_version, d.updated_us, d.job, "        \
    "d.indexed_version, d.given"
#define DOCUMENT_JOIN " JOIN collections c ON c.no = d.collection AND c.deleted = 0 "
#define DOCUMENT_FROM " FROM documents d" DOCUMENT_JOIN
void document_read(struct stmt *s, struct arena *a, struct store_document *out);
must_use int document_by_no(struct sqlite *db, struct arena *a, int64_t no, struct store_document *out, struct err *e);
must_use int document_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_document *out,
                            struct err *e);
/* Removes what was made of a document's content, of its chunks the first `max` only; *left when there are more. Its row
 * keeps its counts until the caller changes it. */
must_use int document_unindex(struct sqlite *db, int64_t no, int64_t max, bool *left, struct err *e);
/* Whether it has more chunks than one step removes. 1, 0, -1. */
must_use int document_is_long(struct sqlite *db, int64_t no, struct err *e);
/* Searches do not see the chunks of hidden documents: they are written or removed in steps. */
must_use int document_hide_chunks(struct sqlite *db, int64_t no, struct err *e);
must_use int document_show_chunks(struct sqlite *db, int64_t no, struct err *e);
enum { INDEX_STEP = 1000 }; /* chunks written or removed in one transaction: others wait for it */
/* The outbox is told to put it into all spaces of its collection. */
must_use int document_want_vectors(struct sqlite *db, const struct store_document *d, int64_t collection,
                                   struct err *e);
/* Whether they are others than those that it had. */
must_use int given_vectors_put(struct sqlite *db, int64_t document, const struct store_given *g, bool *changed,
                               struct err *e);
/* The document with all that belongs to it; its bytes are left to the sweep, and what is long to a job. */
must_use int document_remove(struct sqlite *db, int64_t no, struct err *e);

void chunk_read(struct stmt *s, struct arena *a, struct store_chunk *out); /* CHUNK_COLUMNS */
#define CHUNK_COLUMNS                                                                                                  \
    "k.no, k.id, k.text, k.headings, k.sha256, k.tokens, k.page, k.char_start, k.char_end, k.byte_start, k.byte_end, " \
    "k.parent_char_start, k.parent_char_end, k.parent_byte_start, k.parent_byte_end"

/* Sets state and error of a document, as the end of its job leaves them, and counts a version. Chunks made from an
 * earlier content stay. Nothing when the document has a newer job. */
struct document_end {
    enum document_state state;
    struct str code, stage, message;
    int page;
};
must_use int document_finish(struct sqlite *db, const struct uuid *id, const struct uuid *job,
                             const struct document_end *end, struct err *e);
/* It waits for this job from now on. */
must_use int document_queue(struct sqlite *db, const struct store_document *d, const struct uuid *job, struct err *e);
/* ERR_CONFLICT if somebody else holds its lease. */
must_use int job_held(struct sqlite *db, const struct uuid *job, const struct uuid *owner, struct err *e);
/* Ends a job that is held. */
must_use int job_end_held(struct sqlite *db, const struct uuid *job, const struct uuid *owner, enum job_state state,
                          const struct document_end *end, struct err *e);
int job_lease_lost(struct err *e); /* ERR_CONFLICT */
/* The row of a queued job made of *j, whose id, state and times are set here. */
must_use int job_insert(struct sqlite *db, struct store_job *j, struct err *e);
/* 1: found, 0: not, -1. */
must_use int job_find(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_job *out, struct err *e);
/* The ingest job that is under way for a document, or a new one. The caller notes it in the document. */
must_use int job_for_document(struct sqlite *db, struct arena *a, const struct store_document *d, struct store_job *out,
                              struct err *e);
/* The ingest job that shall fetch a URL for a document: one that waits, or a new one. Noted as above. */
must_use int job_to_fetch(struct sqlite *db, struct arena *a, const struct store_document *d, struct str url,
                          struct store_job *out, struct err *e);
/* 1: the job of the document was to fetch a URL, and *out is one that does not: the same, or, where that runs, another. */
must_use int job_instead_of_fetch(struct sqlite *db, struct arena *a, const struct store_document *d,
                                  struct store_job *out, struct err *e);
/* The document has another content by now. */
must_use int job_fetch_nothing(struct sqlite *db, const struct uuid *job, struct err *e);
/* Before a document goes: its jobs that are over go, too, and those under way end as cancelled. */
must_use int job_forget_document(struct sqlite *db, int64_t document, struct err *e);
/* Back to the queue, due now, as if never tried, because the document has other content now. The document too. */
must_use int job_requeue(struct sqlite *db, const struct uuid *job, const struct uuid *document, struct err *e);
must_use int job_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_job *out, struct err *e);

/* A file may have lost its last reference. */
must_use int file_orphan(struct sqlite *db, const struct sha256 *sha, struct err *e);

/* Registers the tokenizer and the functions of the lexical index and of filters with a new connection. */
must_use int sqlite_search_register(struct sqlite *db, struct err *e);

/* " AND id < ?" and so on of a page, with the order that it is read in. */
struct page_sql {
    bool backwards; /* rows come against the direction of the listing: turn them around */
    struct str where, order;
};
struct page_sql page_sql(struct arena *a, const struct store_page *p, const char *column);
void page_bind(struct stmt *s, const struct store_page *p);
/* Puts rows that were read backwards in order. */
void page_turn(const struct store_page *p, void *rows, size_t n, size_t size);
