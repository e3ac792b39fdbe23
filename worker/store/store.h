/* The store: collections, documents, their bytes, chunks and jobs. The source of truth; every change is one
 * transaction. The interface is a list of verbs on the domain, not SQL. Two products stand behind it (sqlite_*.c,
 * pg_*.c), chosen by database.url, with one suite of contract tests.
 *
 * All verbs may suspend. Results live in the arena that the caller gives. Errors: ERR_NOT_FOUND for an object that is
 * not there, ERR_VERSION for a failed `if_version`, ERR_NAME_TAKEN, ERR_CONFLICT, ERR_BUSY as each verb says;
 * ERR_NOT_READY when the database cannot be reached, ERR_OVERLOADED when too many calls wait, ERR_STORAGE_FULL,
 * ERR_DEADLINE, ERR_CANCELED anywhere. A write that reports an error other than ERR_NOT_READY has not happened;
 * ERR_NOT_READY on a write says in `log` whether it may have.
 *
 * The creation time of an object is the time in its id (UUIDv7), so ids are also the paging order. `version` counts
 * changes of the object as a client sees it (it is the ETag); for documents `content_version` counts its files. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "common/uuid.h"
#include "config/config.h"
#include "worker/fiber/fiber.h"
#include "worker/io/crypto.h"
#include "worker/store/filter.h"

struct store;

enum { STORE_PART = 1 << 20, STORE_LIGHT = 64 << 10 }; /* size of files' parts; of what shares leases and commits */
#define STORE_URL_MIME "application/vnd.ragd.url"      /* of a content that is one URL, which the job is to fetch */

/* ---- paging ---- */
struct store_page {
    int limit;
    bool ascending; /* default: newest first */
    bool has_after, has_before;
    struct uuid after, before; /* exclusive, in the direction of the listing; ids that no longer exist are fine */
};

/* ---- collections ---- */
struct store_generation { /* one space of the vector index; no 0: there is none */
    int64_t no;
    struct str embedder;
    int dim;
};
struct store_collection {
    struct uuid id;
    int64_t no;                             /* small number by which chunks name their collection; never reused */
    struct str name, description, language; /* language: a stemmer's name or "none"; "": ingest.language, of old ones */
    struct str metadata;                    /* JSON object, as text */
    struct str chunking;                    /* JSON object, as text; "{}" = defaults */
    int64_t version, updated_us;
    int64_t documents, failed, bytes; /* counts, exact */
    int64_t chunks, tokens;           /* in the index now; what BM25 needs: N and the sum of lengths */
    int64_t revision;                 /* raised by every change that a search could notice: part of cache keys */
    /* The generation that is searched, the model and length of its vectors ("" and 0: nothing was embedded yet). */
    int64_t generation;
    struct str embedder;
    int dim;
    struct store_generation shadow, previous; /* being built beside it; kept for a rollback */
    bool shadow_built;                        /* the shadow is complete, and may be made the one that is searched */
    bool incomplete;                          /* the outbox has documents to put into the generation that is searched */
};
struct store_collection_patch { /* set_* says which members change */
    bool set_name, set_description, set_language, set_metadata, set_chunking;
    struct str name, description, language, chunking;
    struct str metadata; /* the whole new object: merging is done by the caller under if_version */
};

/* ---- documents ---- */
#define DOCUMENT_STATES(X) X(queued) X(parsing) X(chunking) X(embedding) X(indexing) X(ready) X(failed) X(cancelled)
enum document_state {
#define X(name) DOCUMENT_##name,
    DOCUMENT_STATES(X)
#undef X
        DOCUMENT_STATE_COUNT
};
const char *document_state_name(enum document_state s);
bool document_state_parse(struct str s, enum document_state *out);

struct store_document {
    struct uuid id, collection;
    int64_t no;             /* rowid of the document; chunks are numbered no << 20 | ordinal */
    struct str external_id; /* "" = none; unique within the collection */
    struct str filename, title, mime, language;
    struct str metadata; /* JSON object, as text */
    struct str tags;     /* JSON array of strings, as text */
    struct sha256 sha256;
    int64_t bytes, pages, chunks, tokens;
    enum document_state state;
    int progress_done, progress_total;
    struct str error_code, error_stage, error_message; /* "" = none */
    int error_page;                                    /* 0 = unknown */
    int64_t version, content_version, updated_us;
    struct uuid job;         /* the newest job of this document */
    int64_t indexed_version; /* content_version that its text and chunks were made from; 0: it has none */
    int64_t given;           /* how often other vectors came for the content that it has */
};

/* Vectors that a client made of chunks, which the document is a list of; in order of their chunks. They are its own: other
 * documents with the same text have what the embedder makes of it. */
struct store_given {
    struct str model;
    int dim;
    size_t n;
    const int *ordinal;       /* of the chunk of each */
    const struct sha256 *sha; /* of its text */
    const float *v;           /* n * dim */
};

enum store_duplicate { DUP_SKIP, DUP_LINK, DUP_VERSION, DUP_REJECT };

struct store_document_new {
    struct uuid collection;
    struct str external_id, filename, title, mime, language, metadata, tags;
    struct sha256 sha256;
    int64_t bytes;
    /* The file when it is at most STORE_PART long; else empty, and its parts were put before. */
    struct str inline_bytes;
    /* When the collection has a document of the same bytes: SKIP answers that one. LINK: a second document of the same
     * file. VERSION: a new version of that document, of which only filename, title, metadata and tags change. REJECT:
     * ERR_CONFLICT naming it. SKIP, VERSION and an upsert queue what failed or was cancelled again, with a job. */
    enum store_duplicate on_duplicate;
    struct store_given given; /* a document that is there takes them over */
    bool by_external_id;      /* upsert: see store_document_create */
    int64_t if_version;       /* upsert: 0 = any */
    /* Import: the id and content_version of the document in the store it comes from, so that its chunks keep their ids;
     * duplicates are LINKed. Zero: new ones. ERR_CONFLICT when there is a document of this id. */
    struct uuid id;
    int64_t content_version;
    int64_t hold_us; /* import: so long no worker takes the job, but the caller, to index what came with the document */
};
enum store_created { STORE_CREATED, STORE_DUPLICATE, STORE_UPDATED, STORE_UNCHANGED };

struct store_document_patch {
    bool set_title, set_metadata, set_tags, set_language;
    struct str title, metadata, tags, language;
};

struct store_document_query {
    struct uuid collection;
    bool has_state, has_sha256;
    enum document_state state;
    struct sha256 sha256;
    struct str tag, external_id; /* "" = any */
    struct str q;                /* substring of title, filename or external_id, case-insensitive (ASCII); "" = any */
    const struct filter *filter; /* NULL = any */
    struct store_page page;
};

struct store_version {
    int64_t version, bytes;
    struct sha256 sha256;
    struct str filename, mime;
    int64_t created_us;
};

/* ---- chunks and the lexical index ---- */
struct store_span {
    int64_t char_start, char_end, byte_start, byte_end; /* in the document's text */
};
struct store_chunk_new {
    struct str text;
    struct str terms;    /* analysed terms in order of position, separated by one space: what the lexical index holds */
    struct str headings; /* JSON array of strings */
    struct sha256 sha256;
    int tokens;                                         /* number of terms' positions: the length that BM25 uses */
    int page;                                           /* 0 = none */
    int64_t char_start, char_end, byte_start, byte_end; /* in the document's text */
    struct store_span parent;                           /* what is shown around it; all 0: nothing */
};
struct store_chunk {
    struct uuid id; /* store_chunk_id() */
    struct uuid document;
    int64_t no; /* document's no << 20 | ordinal */
    int ordinal, tokens, page;
    struct str text, headings;
    struct sha256 sha256;
    int64_t char_start, char_end, byte_start, byte_end;
    struct store_span parent;
};

/* The id of a chunk: a UUIDv8 made of a hash, the same in every store and after every rebuild. */
struct uuid store_chunk_id(const struct uuid *document, int64_t content_version, int ordinal);

/* One chunk that holds at least one of the terms of a search. */
struct store_candidate {
    int64_t no;
    int32_t length; /* tokens */
    uint16_t tf[];  /* one for each term */
};
struct store_candidates {
    size_t n, stride; /* of entries; bytes from one to the next */
    char *entries;
    bool truncated; /* `max` was reached */
};
static inline size_t store_candidate_stride(size_t terms)
{
    return (sizeof(struct store_candidate) + terms * sizeof(uint16_t) + 7) / 8 * 8;
}
static inline struct store_candidate *store_candidate_at(const struct store_candidates *c, size_t i)
{
    return (struct store_candidate *)(void *)(c->entries + i * c->stride);
}

/* ---- jobs ---- */
#define JOB_STATES(X) X(queued) X(running) X(succeeded) X(failed) X(cancelled)
enum job_state {
#define X(name) JOB_##name,
    JOB_STATES(X)
#undef X
        JOB_STATE_COUNT
};
const char *job_state_name(enum job_state s);
bool job_state_parse(struct str s, enum job_state *out);

struct store_job {
    struct uuid id;
    struct str type; /* "ingest", "reprocess", "delete_collection", … */
    enum job_state state;
    bool has_document, has_collection, cancel_requested;
    struct uuid document, collection;
    struct str payload; /* JSON object: arguments of the type */
    struct str stage;
    int64_t done, total;
    int attempts;
    struct str error_code, error_stage,
        error_message; /* the message of a job that succeeded: its result as JSON, or "" */
    int64_t run_after_us, lease_expires_us, started_us, finished_us, updated_us;
    int64_t committed; /* content_version whose index an earlier try has committed; only vectors are missing */
};
struct store_job_query {
    bool has_state, has_collection, has_document;
    enum job_state state;
    struct uuid collection, document;
    struct str type; /* "" = any */
    struct store_page page;
};
/* How a lease holder ends its try. All of it is one transaction, and happens only if the lease is still his. */
struct store_index_commit {
    const struct store_chunk_new *chunks;
    size_t n;
    int64_t content_version; /* of the document when it was read; another one now: ERR_CONFLICT, the job is put back */
    struct str text;         /* extracted text, what spans point into; kept for GET …/text */
    struct str title, language, mime; /* as found by extraction; "" keeps what the document has */
    int64_t pages;
    /* Its vectors are still to come: the chunks can be found, the document's state is `indexing`, and the job goes on until
     * job_finish(JOB_succeeded). Otherwise the outbox is told to put the document, if the collection has vectors. */
    bool vectors_due;
};

/* ---- what the vector index has not been told yet ----
 * Written by the same transaction as the change itself. An entry is a hint where to look, not what to do: whoever takes it
 * compares the document with the index, so that entries may come late, twice and in any order. */
#define OUTBOX_KINDS(X) X(remove) X(describe) X(put) X(drop) X(alias)
enum outbox_kind {
#define X(name) OUTBOX_##name,
    OUTBOX_KINDS(X)
#undef X
};
struct store_outbox {
    int64_t no;
    enum outbox_kind kind;
    struct uuid collection, document;
    int64_t collection_no, document_no; /* 0: the whole space; always so of `drop` and `alias` */
    int64_t generation;
    int dim;
    int tries;
};

/* ---- golden sets: questions whose right answers are known ---- */
struct store_eval_set {
    struct uuid id;
    struct str name;
    int64_t questions;
    struct str text; /* one JSON object a line (core/eval.h); empty in lists */
};

/* ---- idempotency keys ---- */
struct store_idempotency {
    struct sha256 key, request; /* hash of credential, method, path and key; hash of the body */
    int status;                 /* 0: the first request is still running */
    struct str content_type, body, location, etag;
    int64_t created_us;   /* set by begin; tells end which row is meant: another may have taken its place */
    int64_t abandoned_us; /* begin: keys that still run after this long count as absent, as their worker died */
};

/* ---- webhooks ----
 * What is delivered to them is written by the transaction that ends a job, by a trigger: the facts as they are then. */
struct store_webhook {
    struct uuid id;
    struct str url, secret;
    struct str events;  /* JSON array of types and families, as text */
    struct str headers; /* JSON object of strings, as text */
    bool enabled;
    struct str disabled_reason;         /* "gone", "failing"; "" = not by the server */
    int64_t version, updated_us;        /* of the settings above; what follows counts no version */
    int64_t failures, failing_since_us; /* tries since the last one that went well; 0: that was the last one */
    int64_t last_try_us;                /* 0 = none yet */
    int last_status;                    /* 0 = no answer */
    struct str last_error;              /* "" = it went well */
    int64_t dropped, last_dropped_us;   /* deliveries, as too many waited: since it was made; 0 = never */
};
struct store_webhook_patch { /* set_* says which members change; whoever is enabled begins anew, without failures */
    bool set_url, set_events, set_secret, set_headers, set_enabled, enabled;
    struct str url, events, secret, headers;
};

#define DELIVERY_STATES(X) X(waiting) X(sending) X(delivered) X(failed)
enum delivery_state {
#define X(name) DELIVERY_##name,
    DELIVERY_STATES(X)
#undef X
        DELIVERY_STATE_COUNT
};
const char *delivery_state_name(enum delivery_state s);

struct store_delivery {
    int64_t no;
    struct uuid id; /* the same at each try */
    struct str type;
    struct str data; /* JSON object, as text */
    enum delivery_state state;
    int64_t created_us, due_us, ended_us;
    int tries, status; /* begun; of the last answer, 0 = there was none */
    struct str error;
    struct store_webhook hook; /* of delivery_take: id, url, secret and headers */
};
struct store_delivery_end {
    int64_t no;
    int tries;                 /* as taken: a later try makes this end void */
    enum delivery_state state; /* waiting: once more, after delay_us; delivered; failed */
    int64_t delay_us;
    int status;
    struct str error;
    bool gone;           /* the receiver wants no more: the webhook is disabled */
    int64_t patience_us; /* so is one that has failed for this long; 0 = never; -1: the end says nothing of it */
};

struct store_ops {
    const char *name; /* "sqlite", "postgresql" */
    void (*free)(struct store *);
    /* Reachable and of a schema that this release understands? For /readyz. ERR_NOT_READY says what is wrong. */
    suspends int (*check)(struct store *, struct err *);
    /* Applies the migrations that are missing, under a lock. *applied: how many. */
    suspends int (*migrate)(struct store *, int *applied, struct err *);
    /* What a worker that ends does with its connections to a server; NULL where there are none. See store_drain(). */
    void (*drain)(struct store *);
    void (*cancel)(struct store *);
    bool (*leave)(struct store *);

    /* in->id zero: a new one. ERR_CONFLICT when it is taken, or what its collection held is still being removed. */
    suspends int (*collection_create)(struct store *, struct arena *, const struct store_collection *in,
                                      struct store_collection *out, struct err *);
    suspends int (*collection_get)(struct store *, struct arena *, const struct uuid *, struct store_collection *out,
                                   struct err *);
    suspends int (*collection_by_name)(struct store *, struct arena *, struct str name, struct store_collection *out,
                                       struct err *);
    suspends int (*collection_list)(struct store *, struct arena *, const struct store_page *,
                                    struct store_collection **out, size_t *n, bool *more, struct err *);
    /* Of another language, a collection that has documents gets a job "reprocess" in the same transaction. */
    suspends int (*collection_patch)(struct store *, struct arena *, const struct uuid *,
                                     const struct store_collection_patch *, int64_t if_version,
                                     struct store_collection *out, struct err *);
    /* Hides the collection at once and queues a job that removes its documents. */
    suspends int (*collection_delete)(struct store *, struct arena *, const struct uuid *, int64_t if_version,
                                      struct store_job *job, struct err *);
    /* One step of that job: removes up to `max` documents, or the collection itself when none is left (*left = 0). */
    suspends int (*collection_purge)(struct store *, const struct uuid *, int max, int64_t *left, struct err *);

    /* A part, at most STORE_PART bytes, of a longer file; idempotent. Parts nobody refers to vanish by file_sweep(). */
    suspends int (*file_put_part)(struct store *, const struct sha256 *, int part, struct str bytes, struct err *);
    suspends int (*file_get_part)(struct store *, struct arena *, const struct sha256 *, int part, struct str *out,
                                  struct err *);
    suspends int (*file_sweep)(struct store *, int max, int64_t *removed, struct err *);

    /* Document row, bytes and job in one transaction. With by_external_id: no such document → STORE_CREATED; same bytes
     * → STORE_UNCHANGED (metadata, title and tags are still taken over, and then it counts as STORE_UPDATED without a
     * job if they differ); other bytes → a new content_version, STORE_UPDATED with a job; a URL → the same, but the content
     * stays, and the job has {"url"} to fetch. What is indexed stays until the next index takes its place. *job is zero
     * where none was made. Given vectors that differ make STORE_UPDATED of all else it would be, and the outbox is told.
     * ERR_CONFLICT: parts are missing (put them again), or REJECT found a duplicate. */
    suspends int (*document_create)(struct store *, struct arena *, const struct store_document_new *,
                                    struct store_document *out, enum store_created *what, struct store_job *job,
                                    struct err *);
    suspends int (*document_get)(struct store *, struct arena *, const struct uuid *, struct store_document *out,
                                 struct err *);
    suspends int (*document_by_external_id)(struct store *, struct arena *, const struct uuid *collection,
                                            struct str external_id, struct store_document *out, struct err *);
    suspends int (*document_list)(struct store *, struct arena *, const struct store_document_query *,
                                  struct store_document **out, size_t *n, bool *more, struct err *);
    suspends int (*document_patch)(struct store *, struct arena *, const struct uuid *,
                                   const struct store_document_patch *, int64_t if_version, struct store_document *out,
                                   struct err *);
    suspends int (*document_delete)(struct store *, const struct uuid *, int64_t if_version, struct err *);
    suspends int (*document_versions)(struct store *, struct arena *, const struct uuid *, struct store_version **out,
                                      size_t *n, struct err *);
    /* ERR_CONFLICT: it has no index */
    suspends int (*document_text)(struct store *, struct arena *, const struct uuid *, struct str *out, struct err *);
    suspends int (*document_chunks)(struct store *, struct arena *, const struct uuid *, int from_ordinal, int limit,
                                    struct store_chunk **out, size_t *n, struct err *);
    suspends int (*chunk_get)(struct store *, struct arena *, const struct uuid *, struct store_chunk *out,
                              struct err *);
    /* A new job for a document as it is; ERR_BUSY while one is queued or running. */
    suspends int (*document_reprocess)(struct store *, struct arena *, const struct uuid *, struct store_job *job,
                                       struct err *);
    /* Numbers of matching documents (filter NULL: all), ascending. `chunks`, if given: only of those with any; the sum. */
    suspends int (*document_match)(struct store *, struct arena *, const struct uuid *collection, const struct filter *,
                                   int64_t *chunks, int64_t **out, size_t *n, struct err *);
    /* Removes up to `max` matching documents; *left: how many remain. */
    suspends int (*document_delete_matching)(struct store *, const struct uuid *collection, const struct filter *,
                                             int max, int64_t *left, struct err *);
    suspends int (*document_count_matching)(struct store *, const struct uuid *collection, const struct filter *,
                                            int64_t *n, struct err *);

    /* Every chunk of the collection that holds at least one of the terms, in ascending order of `no`. A chunk that holds
     * none but such for which `optional` (n flags, or NULL) is set may be left out. */
    suspends int (*search_candidates)(struct store *, struct arena *, const struct store_collection *,
                                      const struct str *terms, const bool *optional, size_t n, size_t max,
                                      struct store_candidates *out, struct err *);
    /* How many chunks of the collection hold each term; *known false: not now. The op is NULL where counting costs as
     * much as finding. */
    suspends int (*search_counts)(struct store *, const struct store_collection *, const struct str *terms, size_t n,
                                  int64_t *counts, bool *known, struct err *);
    /* Chunks by number with their documents, in the order asked for; a number that is gone leaves a zero `no`. */
    suspends int (*search_fetch)(struct store *, struct arena *, const int64_t *nos, size_t n,
                                 struct store_chunk *chunks, struct store_document *documents, struct err *);

    /* Documents by number, in the order asked for; one that is gone leaves a zero `no`. At most 1,000. */
    suspends int (*documents_by_no)(struct store *, struct arena *, const int64_t *nos, size_t n,
                                    struct store_document *out, struct err *);
    /* The document's text from byte `from` on, at most `n` bytes: for the context of chunks. Shorter at its end. */
    suspends int (*document_span)(struct store *, struct arena *, int64_t document_no, int64_t from, size_t n,
                                  struct str *out, struct err *);

    /* The first model of a collection, or the length of its vectors if that was unknown; with the first, the outbox is
     * told to put the documents that came before. Nothing when it has this model already; ERR_CONFLICT when it has
     * another, naming the command that cures it. */
    suspends int (*collection_set_embedder)(struct store *, const struct uuid *, struct str model, int dim,
                                            struct err *);
    /* A generation beside the one that is searched: the one under way if it is of this model, else a new one. ERR_CONFLICT
     * while one of another model is under way. */
    suspends int (*shadow_begin)(struct store *, struct arena *, const struct uuid *, struct str model, int dim,
                                 struct store_collection *out, struct err *);
    /* It is complete. ERR_CONFLICT when it is not the shadow any more. */
    suspends int (*shadow_built)(struct store *, const struct uuid *, int64_t generation, struct err *);
    /* One transaction: searches use the complete shadow, or the previous generation, from now on. What was searched
     * becomes the previous one, and the one before that is dropped. The outbox is told of the whole space, with no
     * document: to describe it, or, of the previous generation, to put it. ERR_CONFLICT: it is neither, or not complete. */
    suspends int (*generation_flip)(struct store *, struct arena *, const struct uuid *, int64_t generation,
                                    struct store_collection *out, struct err *);
    /* Forgets the shadow or the previous generation. ERR_CONFLICT: it is neither. */
    suspends int (*generation_drop)(struct store *, const struct uuid *, int64_t generation, struct err *);

    /* Vectors of the n chunks of a document from ordinal `from` on, by the hash of what they were made from: those that
     * were given for it before those of the embedder. out[i] has *dim floats, or is NULL. *dim 0: that of the first one
     * found; those of another length count as absent. At most 1,000. */
    suspends int (*embeddings_get)(struct store *, struct arena *, struct str model, int *dim, int64_t document_no,
                                   int from, const struct sha256 *chunks, size_t n, const float **out, struct err *);
    /* What the embedder made, for all documents. */
    suspends int (*embeddings_put)(struct store *, struct str model, int dim, const struct sha256 *chunks, size_t n,
                                   const float *v, struct err *);
    /* Looks at the next `max` vectors after *cursor (zero: from the start; zero again when the end was reached) and removes
     * those that nobody has touched for a day and no chunk, or no collection, refers to. */
    suspends int (*embeddings_sweep)(struct store *, struct sha256 *cursor, int max, int64_t *removed, struct err *);
    /* The vectors of a document's chunks are wanted, from now on. */
    suspends int (*document_embedded)(struct store *, int64_t document_no, struct err *);

    /* The oldest entries that are due, which nobody else gets until now + lease, or up to 32 times as long
     * after some tries; each counts a try. */
    suspends int (*outbox_take)(struct store *, struct arena *, int64_t lease_us, int max, struct store_outbox **out,
                                size_t *n, struct err *);
    /* They are no more; those that changed what a search finds raise the revision of their collection. */
    suspends int (*outbox_done)(struct store *, const int64_t *nos, size_t n, struct err *);
    suspends int (*outbox_add)(struct store *, const struct store_outbox *in, size_t n, struct err *);
    suspends int (*outbox_count)(struct store *, int64_t *n, struct err *);
    /* Of the entries that are due in more than a lease, at most `max`, the soonest first, wait for no longer than one since
     * their last try. *n: how many. They keep their tries. */
    suspends int (*outbox_hasten)(struct store *, int64_t lease_us, int max, int64_t *n, struct err *);

    suspends int (*job_create)(struct store *, struct arena *, struct str type, const struct uuid *collection,
                               struct str payload, struct store_job *out, struct err *);
    suspends int (*job_get)(struct store *, struct arena *, const struct uuid *, struct store_job *out, struct err *);
    suspends int (*job_list)(struct store *, struct arena *, const struct store_job_query *, struct store_job **out,
                             size_t *n, bool *more, struct err *);
    /* queued → cancelled at once; running → asks its worker to stop. ERR_CONFLICT when it is over. */
    suspends int (*job_cancel)(struct store *, struct arena *, const struct uuid *, struct store_job *out,
                               struct err *);
    suspends int (*job_retry)(struct store *, struct arena *, const struct uuid *, struct store_job *out,
                              struct err *); /* failed or cancelled only */
    suspends int (*job_counts)(struct store *, int64_t counts[JOB_STATE_COUNT], struct err *);

    /* Leases one certain queued job, as job_lease does. ERR_CONFLICT: somebody else has it, or it is over. */
    suspends int (*job_claim)(struct store *, struct arena *, const struct uuid *job, const struct uuid *owner,
                              int64_t lease_us, struct store_job *out, struct err *);
    /* The oldest job that is due, now leased to `owner` until now + lease: queued ones, and running ones whose lease has
     * run out. `attempts` counts the tries begun, this one included; job_put_back without count_attempt takes it off.
     * A job out of attempts is failed by the taker (jobs/). When it is the first try of a small document, those that come
     * next and are so, too, are leased with it, `max` at most: a document that kills its worker costs its neighbours one
     * try, since further ones are leased alone. *n = 0: none. */
    suspends int (*job_lease)(struct store *, struct arena *, const struct uuid *owner, int64_t lease_us, size_t max,
                              struct store_job *out, size_t *n, struct err *);
    /* Extends the lease and reports progress, on the document too. ERR_CONFLICT: the lease is lost, give up.
     * *cancel: somebody asked for an end. */
    suspends int (*job_renew)(struct store *, const struct uuid *job, const struct uuid *owner, int64_t lease_us,
                              enum document_state state, struct str stage, int64_t done, int64_t total, bool *cancel,
                              struct err *);
    suspends int (*job_commit_index)(struct store *, const struct uuid *job, const struct uuid *owner,
                                     const struct store_index_commit *, struct err *);
    /* JOB_succeeded makes its document ready, if it has one. */
    suspends int (*job_finish)(struct store *, const struct uuid *job, const struct uuid *owner, enum job_state state,
                               struct str code, struct str stage, struct str message, int page, struct err *);
    suspends int (*job_put_back)(struct store *, const struct uuid *job, const struct uuid *owner, int64_t delay_us,
                                 bool count_attempt, struct str code, struct str stage, struct str message,
                                 struct err *);

    /* ERR_QUOTA when there are `max` of them already. */
    suspends int (*webhook_create)(struct store *, struct arena *, const struct store_webhook *in, int64_t max,
                                   struct store_webhook *out, struct err *);
    suspends int (*webhook_get)(struct store *, struct arena *, const struct uuid *, struct store_webhook *out,
                                struct err *);
    suspends int (*webhook_list)(struct store *, struct arena *, const struct store_page *, struct store_webhook **out,
                                 size_t *n, bool *more, struct err *);
    suspends int (*webhook_patch)(struct store *, struct arena *, const struct uuid *,
                                  const struct store_webhook_patch *, int64_t if_version, struct store_webhook *out,
                                  struct err *);
    /* It is gone at once; its deliveries go with delivery_sweep. */
    suspends int (*webhook_delete)(struct store *, const struct uuid *, int64_t if_version, struct err *);

    /* One more, of no job: only type and data of `in` count. ERR_CONFLICT when the webhook is disabled. */
    suspends int (*delivery_create)(struct store *, struct arena *, const struct uuid *webhook,
                                    const struct store_delivery *in, struct store_delivery *out, struct err *);
    /* Newest first, those before delivery `after` (NULL: all). */
    suspends int (*delivery_list)(struct store *, struct arena *, const struct uuid *webhook, const struct uuid *after,
                                  int limit, struct store_delivery **out, size_t *n, bool *more, struct err *);
    /* Up to `max` that are due, which nobody else gets until now + lease; each counts a try. Of no webhook are more than
     * `each` under way at once; those with the fewest come first. */
    suspends int (*delivery_take)(struct store *, struct arena *, int64_t lease_us, int max, int each,
                                  struct store_delivery **out, size_t *n, struct err *);
    /* The end of a try. ERR_CONFLICT: another one is under way, or the delivery is gone. *disabled: its webhook was
     * disabled for it; what waits for that fails with delivery_sweep. */
    suspends int (*delivery_end)(struct store *, const struct store_delivery_end *, bool *disabled, struct err *);
    /* One step of what is left to do about them, of up to `max`: of a webhook for which more than max_waiting wait, the
     * oldest of these are dropped (*dropped: how many); those of a deleted one are removed, and at last itself; those that
     * wait for one that the server disabled fail; those older than keep_us are removed, whatever their state. *done: how
     * many; 0: there is nothing to do, or somebody else is at it. */
    suspends int (*delivery_sweep)(struct store *, int64_t keep_us, int64_t max_waiting, int max, int64_t *done,
                                   int64_t *dropped, struct err *);
    suspends int (*delivery_counts)(struct store *, int64_t counts[DELIVERY_STATE_COUNT], struct err *);

    /* `fn(arg)` is called, from the loop, when a process of another machine may have queued a job. The op is
     * NULL where there are no such machines. `fn` NULL: nobody is told any more. */
    void (*on_job)(struct store *, void (*fn)(void *arg), void *arg);

    /* ERR_NAME_TAKEN; ERR_QUOTA when there are `max` already. Sets never change. */
    suspends int (*eval_set_create)(struct store *, struct arena *, const struct store_eval_set *in, int64_t max,
                                    struct store_eval_set *out, struct err *);
    /* By id; by name where it is NULL. */
    suspends int (*eval_set_get)(struct store *, struct arena *, const struct uuid *, struct str name,
                                 struct store_eval_set *out, struct err *);
    suspends int (*eval_set_list)(struct store *, struct arena *, const struct store_page *,
                                  struct store_eval_set **out, size_t *n, bool *more, struct err *);
    suspends int (*eval_set_delete)(struct store *, const struct uuid *, struct err *); /* and its results */
    /* What a job found with a set: a JSON object, which takes the place of what an earlier try wrote. Of each set the
     * newest `keep` results are kept. ERR_NOT_FOUND: there is no such set any more; no such result. */
    suspends int (*eval_result_put)(struct store *, const struct uuid *job, const struct uuid *set, struct str result,
                                    int keep, struct err *);
    suspends int (*eval_result_get)(struct store *, struct arena *, const struct uuid *job, struct str *result,
                                    struct err *);

    /* Inserts the key as running: *mine = true; or gives what is there. Rows older than 24 h count as absent. */
    suspends int (*idempotency_begin)(struct store *, struct arena *, const struct store_idempotency *in, bool *mine,
                                      struct store_idempotency *out, struct err *);
    suspends int (*idempotency_end)(struct store *, const struct store_idempotency *,
                                    struct err *); /* status 0: forget it. Nothing if the row is gone */
};

struct store {
    const struct store_ops *ops;
};

/* What store_open() would say about database.url. */
must_use int store_check(const struct config *cfg, struct err *e);
/* Opens the product that database.url names. Connects lazily: a database that is down is no error here, a URL that
 * makes no sense is (ERR_VALIDATION). The store lives as long as its worker. Embedded databases are migrated. */
suspends must_use int store_open(const struct config *cfg, struct store **out, struct err *e);
/* The same for a process that must not change the schema, and uses only what is there: an error when the database does not
 * answer, or has not the schema of this release. */
suspends must_use int store_open_unchanged(const struct config *cfg, struct store **out, struct err *e);
void store_close(struct store *s); /* NULL accepted */
/* The steps before that: lets go of what is not in use; cancels what still runs; and, when nothing is in hand any more,
 * takes leave: true when that is done. NULL accepted. */
void store_drain(struct store *s);
void store_cancel(struct store *s);
bool store_leave(struct store *s);

/* The verbs: STORE_CALL(s, document_get, …) is s->ops->document_get(s, …), and the request in whose fiber it is called
 * says so, should its worker die or hang. */
#define STORE_CALL(s, verb, ...) (store_asked(#verb), (s)->ops->verb((s), ##__VA_ARGS__))
void store_asked(const char *verb);

extern const struct store_ops store_sqlite_ops, store_pg_ops;
suspends must_use int store_sqlite_open(const struct config *cfg, const char *path, bool unchanged, struct store **out,
                                        struct err *e);
suspends must_use int store_pg_open(const struct config *cfg, bool unchanged, struct store **out, struct err *e);
