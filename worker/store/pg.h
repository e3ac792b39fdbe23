/* The PostgreSQL product of the store, private to pg_*.c. Reads run on the fast lane, changes of documents and jobs on the
 * write lane (each is one statement, so they share commits), and what is unbounded on the slow lane; see
 * worker/io/pg.h and pg_stmts.def. */
#pragma once
#include "worker/fiber/loop.h"
#include "worker/io/pg.h"
#include "worker/store/product.h"

enum pg_statement {
#define STMT(name, lane, write, binary, sql) S_##name,
#include "worker/store/pg_stmts.def"
#undef STMT
    S_COUNT
};

struct pg_store {
    struct store store; /* must be first */
    const struct config *cfg;
    struct pg *pg;
    struct list creating; /* documents that wait for the next batch */
    int n_creating;
    bool batching; /* a fiber sends batches */
    struct fiber *batcher;
    int batch_left;      /* of the batch under way: how many still want it */
    struct list lookups; /* ids that wait for the next question */
    int n_lookups;
    int asking; /* questions under way */
    struct loop_hook hook;
    bool announce;                      /* jobs were queued since the last notice to other machines */
    struct fiber *announcer, *migrator; /* NULL: there is none */
    int refs;                           /* the owner, and fibers at work for it */
    bool closing;
};

static inline struct pg_store *pg_of(struct store *s)
{
    return (struct pg_store *)(void *)s;
}

#define NO_COLLECTION "No such collection"
#define NO_DOCUMENT   "No such document"
#define NO_JOB        "No such job"
#define NO_WEBHOOK    "No such webhook"

/* ---- pg_read.c: rows to objects ---- */
struct cursor { /* of the columns of a row, left to right */
    const struct pg_rows *r;
    int row, col;
};
struct str next_str(struct cursor *c);
int64_t next_i64(struct cursor *c);
bool next_uuid(struct cursor *c, struct uuid *out); /* false: NULL, and zero */
void next_sha(struct cursor *c, struct sha256 *out);
void read_collection(const struct pg_rows *r, int row, struct store_collection *out);
void read_document(const struct pg_rows *r, int row, struct store_document *out);
void read_job(const struct pg_rows *r, int row, struct store_job *out);
void read_chunk(const struct pg_rows *r, int row, struct store_chunk *out); /* its document is left alone */
void arg_sha(struct pg_args *args, const struct sha256 *s);

/* Reads back what was just changed. The change has happened, so a client that leaves or a deadline makes no error of it. */
#define READ_BACK(e, call)                     \
    __extension__({                            \
        fiber_shield(1);                       \
        int rc_ = (call);                      \
        fiber_shield(-1);                      \
        rc_ < 0 ? changed_but_not_read(e) : 0; \
    })
int changed_but_not_read(struct err *e);

/* ERR_VERSION, naming both. */
int wrong_version(int64_t have, int64_t want, struct err *e);
/* A member of a patch: NULL leaves it as it is. */
void arg_if(struct pg_args *args, bool set, struct str s);

/* Keyset pages: rows strictly between two ids. */
struct page {
    bool up;            /* the order in which rows are read */
    bool backwards;     /* rows come against the direction of the listing: turn them around */
    struct uuid lo, hi; /* exclusive */
};
struct page page_of(const struct store_page *p);
/* The rows of a page of which only ids decide, by the statement for its order: one more than `p->limit`, for page_end(). */
suspends must_use int page_rows(struct store *st, struct arena *a, const struct store_page *p, enum pg_statement up,
                                enum pg_statement down, struct pg_rows *r, struct err *e);
/* Cuts the row too many, tells whether it was there, and puts rows that were read backwards in order. */
void page_end(const struct store_page *p, void *rows, size_t size, size_t *n, bool *more);

/* SQL made at run time. */
struct query {
    struct buf sql;
    struct pg_args args;
};
/* Appends the condition that a filter means for the JSON column `metadata` of alias d, and its arguments. */
void filter_sql(struct query *q, const struct filter *f);

void pg_store_release(struct pg_store *s);

/* At the end of each turn: asks for the documents that fibers wait for. */
void pg_lookups_flush(void *store);

/* A job was queued: other machines are told, soon and not more often than ten times a second. */
void pg_announce(struct pg_store *s);

/* ---- the verbs, by file; see store.h ---- */
#define VERB(name) __typeof__(*((struct store_ops *)NULL)->name) pg_##name;
#include "worker/store/pg_verbs.def"
#undef VERB
