#include "worker/store/sqlite.h"
#include "common/clock.h"

void document_read(struct stmt *s, struct arena *a, struct store_document *out)
{
    out->no = col_i64(s);
    col_uuid(s, &out->id);
    col_uuid(s, &out->collection);
    out->external_id = col_str(s, a);
    out->filename = col_str(s, a);
    out->title = col_str(s, a);
    out->mime = col_str(s, a);
    out->language = col_str(s, a);
    out->metadata = col_str(s, a);
    out->tags = col_str(s, a);
    col_sha(s, &out->sha256);
    out->bytes = col_i64(s);
    out->pages = col_i64(s);
    out->chunks = col_i64(s);
    out->tokens = col_i64(s);
    out->state = (enum document_state)col_i64(s);
    out->progress_done = (int)col_i64(s);
    out->progress_total = (int)col_i64(s);
    out->error_code = col_str(s, a);
    out->error_stage = col_str(s, a);
    out->error_message = col_str(s, a);
    out->error_page = (int)col_i64(s);
    out->version = col_i64(s);
    out->content_version = col_i64(s);
    out->updated_us = col_i64(s);
    col_uuid(s, &out->job);
    out->indexed_version = col_i64(s);
    out->given = col_i64(s);
}

/* 1: found, 0: not, -1: error. */
static int find(struct stmt *s, struct arena *a, struct store_document *out, struct err *e)
{
    int rc = stmt_row(s, e);
    if (rc > 0) {
        document_read(s, a, out);
        stmt_end(s);
    }
    return rc;
}

static int must_find(struct stmt *s, struct arena *a, struct store_document *out, struct err *e)
{
    int rc = find(s, a, out, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_DOCUMENT);
    return rc < 0 ? -1 : 0;
}

int document_by_no(struct sqlite *db, struct arena *a, int64_t no, struct store_document *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " DOCUMENT_COLUMNS DOCUMENT_FROM "WHERE d.no = ?");
    bind_i64(s, no);
    return must_find(s, a, out, e);
}

int document_by_id(struct sqlite *db, struct arena *a, const struct uuid *id, struct store_document *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " DOCUMENT_COLUMNS DOCUMENT_FROM "WHERE d.id = ?");
    bind_uuid(s, id);
    return must_find(s, a, out, e);
}

static int by_external_id(struct sqlite *db, struct arena *a, int64_t collection, struct str external_id,
                          struct store_document *out, struct err *e)
{
    struct stmt *s =
        stmt_get(db, "SELECT " DOCUMENT_COLUMNS DOCUMENT_FROM "WHERE d.collection = ? AND d.external_id = ?");
    bind_i64(s, collection);
    bind_str(s, external_id);
    return find(s, a, out, e);
}

static int by_sha(struct sqlite *db, struct arena *a, int64_t collection, const struct sha256 *sha,
                  struct store_document *out, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT " DOCUMENT_COLUMNS DOCUMENT_FROM
                                  "WHERE d.collection = ? AND d.sha256 = ? ORDER BY d.no LIMIT 1");
    bind_i64(s, collection);
    bind_sha(s, sha);
    return find(s, a, out, e);
}

suspends int sqlite_document_get(struct store *st, struct arena *a, const struct uuid *id, struct store_document *out,
                                 struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, document_by_id(db, a, id, out, e));
}

static int get_by_external_id(struct sqlite *db, struct arena *a, const struct uuid *collection, struct str external_id,
                              struct store_document *out, struct err *e)
{
    int64_t no;
    if (collection_no(db, collection, &no, e) < 0)
        return -1;
    int rc = by_external_id(db, a, no, external_id, out, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_DOCUMENT);
    return rc < 0 ? -1 : 0;
}

suspends int sqlite_document_by_external_id(struct store *st, struct arena *a, const struct uuid *collection,
                                            struct str external_id, struct store_document *out, struct err *e)
{
    struct sqlite *db = sqlite_of(st);
    return SQLITE_TRY(db, e, get_by_external_id(db, a, collection, external_id, out, e));
}

static int run_one(struct sqlite *db, const char *sql, int64_t no, struct err *e)
{
    struct stmt *s = stmt_get(db, sql);
    bind_i64(s, no);
    return stmt_run(s, e);
}

/* ---- create and upsert ---- */

struct create_call {
    struct arena *a;
    const struct store_document_new *in;
    int64_t collection;
    struct store_document doc;
    enum store_created what;
    struct store_job job;
};

/* The bytes are in the store when this returns. */
static int put_file(struct sqlite *db, const struct store_document_new *in, struct err *e)
{
    struct stmt *s;
    if (in->inline_bytes.n == (size_t)in->bytes) {
        s = stmt_get(db, "INSERT INTO files (sha256, part, bytes) VALUES (?, 0, ?) ON CONFLICT DO NOTHING");
        bind_sha(s, &in->sha256);
        bind_blob(s, in->inline_bytes);
        return stmt_run(s, e);
    }
    s = stmt_get(db, "SELECT count(*), total(length(bytes)) FROM files WHERE sha256 = ?");
    bind_sha(s, &in->sha256);
    if (stmt_row(s, e) <= 0)
        return -1;
    int64_t parts = col_i64(s), bytes = col_i64(s);
    stmt_end(s);
    if (bytes != in->bytes || parts != (in->bytes + STORE_PART - 1) / STORE_PART)
        return err_set(e, ERR_CONFLICT, "Parts of the file are missing: %lld of %lld bytes are there", (long long)bytes,
                       (long long)in->bytes);
    return 0;
}

static int id_free(struct sqlite *db, const struct uuid *id, struct err *e)
{
    struct stmt *s = stmt_get(db, "SELECT 1 FROM documents WHERE id = ?");
    bind_uuid(s, id);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc;
    stmt_end(s);
    return store_id_taken(id, e);
}

static int insert_document(struct sqlite *db, struct create_call *c, struct err *e)
{
    const struct store_document_new *in = c->in;
    struct store_document *d = &c->doc;
    *d = (struct store_document){.id = uuid_is_zero(&in->id) ? uuid_v7() : in->id,
                                 .collection = in->collection,
                                 .external_id = in->external_id,
                                 .filename = in->filename,
                                 .title = in->title,
                                 .mime = in->mime,
                                 .language = in->language,
                                 .metadata = in->metadata.n ? in->metadata : STR("{}"),
                                 .tags = in->tags.n ? in->tags : STR("[]"),
                                 .sha256 = in->sha256,
                                 .bytes = in->bytes,
                                 .version = 1,
                                 .content_version = in->content_version ? in->content_version : 1};
    d->updated_us = uuid_time_us(&d->id);
    c->what = STORE_CREATED;
    c->job = (struct store_job){.type = STR("ingest"),
                                .has_document = true,
                                .document = d->id,
                                .has_collection = true,
                                .collection = in->collection,
                                .payload = STR("{}"),
                                .run_after_us = in->hold_us ? clock_wall_us() + in->hold_us : 0};
    if ((!uuid_is_zero(&in->id) && id_free(db, &in->id, e) < 0) || put_file(db, in, e) < 0 ||
        job_insert(db, &c->job, e) < 0)
        return -1;
    d->job = c->job.id;
    struct stmt *s = stmt_get(db, "INSERT INTO documents (id, collection, external_id, filename, title, mime, language,"
                                  " metadata, tags, sha256, bytes, content_us, updated_us, job, content_version)"
                                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    bind_uuid(s, &d->id);
    bind_i64(s, c->collection);
    bind_opt(s, d->external_id);
    bind_str(s, d->filename);
    bind_str(s, d->title);
    bind_str(s, d->mime);
    bind_str(s, d->language);
    bind_str(s, d->metadata);
    bind_str(s, d->tags);
    bind_sha(s, &d->sha256);
    bind_i64(s, d->bytes);
    bind_i64(s, d->updated_us);
    bind_i64(s, d->updated_us);
    bind_uuid(s, &d->job);
    bind_i64(s, d->content_version);
    if (stmt_run(s, e) < 0)
        return -1;
    d->no = sqlite3_last_insert_rowid(db->h);
    return 0;
}

/* Takes over what the request names; what it leaves empty stays. True when that changes anything. */
static bool take_over(struct store_document *d, const struct store_document_new *in)
{
    struct {
        struct str *now, want;
    } members[] = {{&d->title, in->title}, {&d->metadata, in->metadata}, {&d->tags, in->tags}};
    bool changed = false;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (members[i].want.n && !str_eq(*members[i].now, members[i].want)) {
            *members[i].now = members[i].want;
            changed = true;
        }
    return changed;
}

static int keep_version(struct sqlite *db, int64_t no, struct err *e)
{
    struct stmt *s = stmt_get(db, "INSERT INTO versions SELECT no, content_version, sha256, bytes, filename, mime,"
                                  " content_us FROM documents WHERE no = ?");
    bind_i64(s, no);
    return stmt_run(s, e);
}

static int update_described(struct sqlite *db, struct store_document *d, struct err *e)
{
    d->version++;
    d->updated_us = clock_wall_us();
    struct stmt *s = stmt_get(db, "UPDATE documents SET title = ?, metadata = ?, tags = ?, language = ?, version = ?,"
                                  " updated_us = ? WHERE no = ?");
    bind_str(s, d->title);
    bind_str(s, d->metadata);
    bind_str(s, d->tags);
    bind_str(s, d->language);
    bind_i64(s, d->version);
    bind_i64(s, d->updated_us);
    bind_i64(s, d->no);
    return stmt_run(s, e);
}

static int queue_document(struct sqlite *db, struct create_call *c, struct err *e)
{
    struct store_document *d = &c->doc;
    return document_queue(db, d, &c->job.id, e) < 0 ? -1 : document_by_no(db, c->a, d->no, d, e);
}

/* What failed or was cancelled is tried again when its bytes come again. */
static int try_again(struct sqlite *db, struct create_call *c, struct err *e)
{
    if (c->doc.state != DOCUMENT_failed && c->doc.state != DOCUMENT_cancelled)
        return 0;
    return job_for_document(db, c->a, &c->doc, &c->job, e) < 0 ? -1 : queue_document(db, c, e);
}

/* The bytes that are there are wanted after all, and not what a URL leads to that its job was to fetch. */
static int fetch_no_more(struct sqlite *db, struct create_call *c, struct err *e)
{
    int rc = job_instead_of_fetch(db, c->a, &c->doc, &c->job, e);
    return rc <= 0 ? rc : queue_document(db, c, e);
}

/* A further version of the same bytes: what was made from them stays valid. */
static int same_bytes_version(struct sqlite *db, struct create_call *c, struct err *e)
{
    struct store_document *d = &c->doc;
    take_over(d, c->in);
    if (keep_version(db, d->no, e) < 0 || update_described(db, d, e) < 0)
        return -1;
    if (c->in->filename.n)
        d->filename = c->in->filename;
    struct stmt *s = stmt_get(db, "UPDATE documents SET filename = ?, content_version = content_version + 1,"
                                  " indexed_version = indexed_version + (indexed_version = content_version),"
                                  " content_us = ? WHERE no = ?");
    bind_str(s, d->filename);
    bind_i64(s, d->updated_us);
    bind_i64(s, d->no);
    d->indexed_version += d->indexed_version == d->content_version;
    d->content_version++;
    c->what = STORE_UPDATED;
    return stmt_run(s, e) < 0 ? -1 : try_again(db, c, e);
}

/* The document waits for its job, to get another content. */
static int queue_again(struct sqlite *db, struct create_call *c, struct err *e)
{
    const struct store_document_new *in = c->in;
    struct store_document *d = &c->doc;
    take_over(d, in);
    d->filename = in->filename.n ? in->filename : d->filename;
    d->language = in->language.n ? in->language : d->language;
    d->state = DOCUMENT_queued;
    d->progress_done = d->progress_total = d->error_page = 0;
    d->error_code = d->error_stage = d->error_message = STR("");
    d->job = c->job.id;
    c->what = STORE_UPDATED;
    if (update_described(db, d, e) < 0)
        return -1;
    struct stmt *s = stmt_get(db, "UPDATE documents SET filename = ?, state = 0, progress_done = 0, progress_total = 0,"
                                  " error_code = '', error_stage = '', error_message = '', error_page = 0, job = ?"
                                  " WHERE no = ?");
    bind_str(s, d->filename);
    bind_uuid(s, &d->job);
    bind_i64(s, d->no);
    return stmt_run(s, e);
}

/* Other bytes under a known external id. The old chunks are found until the new ones take their place. A job that is
 * under way serves the new content as well: it cannot commit the old one. */
static int new_content(struct sqlite *db, struct create_call *c, struct err *e)
{
    const struct store_document_new *in = c->in;
    struct store_document *d = &c->doc;
    if (put_file(db, in, e) < 0 || keep_version(db, d->no, e) < 0 || job_for_document(db, c->a, d, &c->job, e) < 0 ||
        job_fetch_nothing(db, &c->job.id, e) < 0 || queue_again(db, c, e) < 0)
        return -1;
    d->mime = in->mime;
    d->sha256 = in->sha256;
    d->bytes = in->bytes;
    d->content_version++;
    struct stmt *s = stmt_get(db, "UPDATE documents SET mime = ?, sha256 = ?, bytes = ?, content_version = ?,"
                                  " content_us = ? WHERE no = ?");
    bind_str(s, d->mime);
    bind_sha(s, &d->sha256);
    bind_i64(s, d->bytes);
    bind_i64(s, d->content_version);
    bind_i64(s, d->updated_us);
    bind_i64(s, d->no);
    return stmt_run(s, e);
}

/* What a URL leads to takes the place of the content only when it is there. */
static int new_url(struct sqlite *db, struct create_call *c, struct err *e)
{
    int rc = job_to_fetch(db, c->a, &c->doc, c->in->inline_bytes, &c->job, e);
    return rc < 0 ? -1 : queue_again(db, c, e);
}

static int upsert(struct sqlite *db, struct create_call *c, struct err *e)
{
    int rc = by_external_id(db, c->a, c->collection, c->in->external_id, &c->doc, e);
    if (rc < 0)
        return -1;
    if (rc == 0) {
        if (c->in->if_version)
            return err_set(e, ERR_VERSION, "There is no such document yet");
        return insert_document(db, c, e);
    }
    if (version_is(c->doc.version, c->in->if_version, e) < 0)
        return -1;
    if (str_eq(c->in->mime, STR(STORE_URL_MIME)) && !str_eq(c->doc.mime, c->in->mime))
        return new_url(db, c, e);
    if (memcmp(&c->doc.sha256, &c->in->sha256, sizeof c->doc.sha256) != 0)
        return new_content(db, c, e);
    bool changed = take_over(&c->doc, c->in);
    if ((changed && update_described(db, &c->doc, e) < 0) || try_again(db, c, e) < 0 ||
        (uuid_is_zero(&c->job.id) && fetch_no_more(db, c, e) < 0))
        return -1;
    c->what = changed || !uuid_is_zero(&c->job.id) ? STORE_UPDATED : STORE_UNCHANGED;
    return 0;
}

static int find_or_insert(struct sqlite *db, struct create_call *c, struct err *e)
{
    const struct store_document_new *in = c->in;
    int rc = 0;
    c->job = (struct store_job){0};
    if (collection_no(db, &in->collection, &c->collection, e) < 0)
        return -1;
    if (in->by_external_id)
        return upsert(db, c, e);
    if (in->on_duplicate != DUP_LINK && uuid_is_zero(&in->id))
        rc = by_sha(db, c->a, c->collection, &in->sha256, &c->doc, e);
    if (rc < 0)
        return -1;
    if (rc > 0 && in->on_duplicate == DUP_REJECT)
        return store_same_bytes(&c->doc.id, e);
    if (rc > 0 && in->on_duplicate == DUP_VERSION)
        return same_bytes_version(db, c, e);
    if (rc > 0) {
        c->what = STORE_DUPLICATE;
        return try_again(db, c, e);
    }
    if (in->external_id.n) {
        rc = by_external_id(db, c->a, c->collection, in->external_id, &c->doc, e);
        if (rc < 0)
            return -1;
        if (rc > 0)
            return store_external_id_taken(&c->doc.id, e);
    }
    return insert_document(db, c, e);
}

/* Without a job the outbox brings them into the index. */
static int take_vectors(struct sqlite *db, struct create_call *c, struct err *e)
{
    struct store_document *d = &c->doc;
    bool changed;
    if (given_vectors_put(db, d->no, &c->in->given, &changed, e) < 0)
        return -1;
    if (!changed || !uuid_is_zero(&c->job.id))
        return 0;
    if ((c->what != STORE_UPDATED && update_described(db, d, e) < 0) ||
        run_one(db, "UPDATE documents SET given = given + 1 WHERE no = ?", d->no, e) < 0 ||
        (d->indexed_version > 0 && document_want_vectors(db, d, c->collection, e) < 0))
        return -1;
    c->what = STORE_UPDATED;
    return 0;
}

static int create(struct sqlite *db, void *arg, struct err *e)
{
    struct create_call *c = arg;
    return find_or_insert(db, c, e) < 0 || (c->in->given.n && take_vectors(db, c, e) < 0) ? -1 : 0;
}

/* The document may point into the request, which lives as long as the caller's arena does not promise. */
static void own_strings(struct arena *a, struct store_document *d)
{
    struct str *all[] = {&d->external_id, &d->filename, &d->title, &d->mime, &d->language, &d->metadata, &d->tags};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = arena_dup(a, *all[i]);
}

suspends int sqlite_document_create(struct store *st, struct arena *a, const struct store_document_new *in,
                                    struct store_document *out, enum store_created *what, struct store_job *job,
                                    struct err *e)
{
    struct create_call c = {.a = a, .in = in};
    if (sqlite_write(sqlite_of(st), create, &c, e) < 0)
        return -1;
    own_strings(a, &c.doc);
    *out = c.doc;
    *what = c.what;
    *job = c.job;
    return 0;
}

/* ---- change ---- */

struct patch_call {
    struct arena *a;
    const struct uuid *id;
    const struct store_document_patch *patch;
    int64_t if_version;
    struct store_document doc;
};

static int patch(struct sqlite *db, void *arg, struct err *e)
{
    struct patch_call *c = arg;
    const struct store_document_patch *p = c->patch;
    struct store_document *d = &c->doc;
    if (document_by_id(db, c->a, c->id, d, e) < 0 || version_is(d->version, c->if_version, e) < 0)
        return -1;
    if (p->set_title)
        d->title = p->title;
    if (p->set_metadata)
        d->metadata = p->metadata;
    if (p->set_tags)
        d->tags = p->tags;
    if (p->set_language)
        d->language = p->language;
    return update_described(db, d, e);
}

suspends int sqlite_document_patch(struct store *st, struct arena *a, const struct uuid *id,
                                   const struct store_document_patch *p, int64_t if_version, struct store_document *out,
                                   struct err *e)
{
    struct patch_call c = {.a = a, .id = id, .patch = p, .if_version = if_version};
    if (sqlite_write(sqlite_of(st), patch, &c, e) < 0)
        return -1;
    own_strings(a, &c.doc);
    *out = c.doc;
    return 0;
}

/* Of a cancelled job that had made the index, and was about to make the vectors. */
static int tell_of_missing_vectors(struct sqlite *db, int64_t no, const struct uuid *job, struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE documents SET error_code = 'cancelled', error_stage = 'index vectors',"
                                  " error_message = 'The job was cancelled before the document had all its vectors:"
                                  " searches by vectors miss it until the job is retried or the document reprocessed'"
                                  " WHERE no = ? AND indexed_version = content_version"
                                  " AND content_version = (SELECT committed FROM jobs WHERE id = ?)");
    bind_i64(s, no);
    bind_uuid(s, job);
    return stmt_run(s, e);
}

int document_finish(struct sqlite *db, const struct uuid *id, const struct uuid *job, const struct document_end *end,
                    struct err *e)
{
    struct stmt *s = stmt_get(db, "UPDATE documents SET state = ?, error_code = ?, error_stage = ?, error_message = ?,"
                                  " error_page = ?, version = version + 1, updated_us = ? WHERE id = ?"
                                  " AND job = ? RETURNING no");
    bind_i64(s, end->state);
    bind_str(s, end->code);
    bind_str(s, end->stage);
    bind_str(s, end->message);
    bind_i64(s, end->page);
    bind_i64(s, clock_wall_us());
    bind_uuid(s, id);
    bind_uuid(s, job);
    int rc = stmt_row(s, e);
    if (rc <= 0)
        return rc; /* the document is gone: nobody to tell */
    int64_t no = col_i64(s);
    stmt_end(s);
    return end->state == DOCUMENT_cancelled ? tell_of_missing_vectors(db, no, job, e) : 0;
}

/* ---- removal ---- */

/* A collection that nobody ever saw takes the document, and the job that purges collections does the rest in steps. */
static int remove_later(struct sqlite *db, int64_t no, struct err *e)
{
    struct store_job j = {.type = STR("delete_collection"),
                          .has_collection = true,
                          .collection = uuid_v7(),
                          .total = 1,
                          .payload = STR("{}")};
    struct stmt *s = stmt_get(db, "INSERT INTO collections (id, name, description, language, metadata, chunking,"
                                  " version, updated_us, deleted) VALUES (?, '', '', '', '{}', '{}', 1, ?, 1)");
    bind_uuid(s, &j.collection);
    bind_i64(s, clock_wall_us());
    if (stmt_run(s, e) < 0)
        return -1;
    int64_t collection = sqlite3_last_insert_rowid(db->h);
    if (document_hide_chunks(db, no, e) < 0 || job_forget_document(db, no, e) < 0 || job_insert(db, &j, e) < 0)
        return -1;
    s = stmt_get(db, "UPDATE documents SET collection = ?, external_id = NULL WHERE no = ?");
    bind_i64(s, collection);
    bind_i64(s, no);
    return stmt_run(s, e);
}

int document_remove(struct sqlite *db, int64_t no, struct err *e)
{
    bool left;
    int rc = document_is_long(db, no, e);
    if (rc != 0)
        return rc < 0 ? -1 : remove_later(db, no, e);
    struct stmt *s = stmt_get(db, "INSERT INTO file_orphans SELECT sha256, ?2 FROM documents WHERE no = ?1"
                                  " UNION SELECT sha256, ?2 FROM versions WHERE document = ?1"
                                  " ON CONFLICT DO UPDATE SET since_us = excluded.since_us");
    bind_i64(s, no);
    bind_i64(s, clock_wall_us());
    if (stmt_run(s, e) < 0 || document_unindex(db, no, INDEX_STEP, &left, e) < 0 ||
        job_forget_document(db, no, e) < 0 || run_one(db, "DELETE FROM versions WHERE document = ?", no, e) < 0)
        return -1;
    return run_one(db, "DELETE FROM documents WHERE no = ?", no, e);
}

struct delete_call {
    const struct uuid *id;
    int64_t if_version;
};

static int delete (struct sqlite *db, void *arg, struct err *e)
{
    struct delete_call *c = arg;
    struct stmt *s = stmt_get(db, "SELECT d.no, d.version" DOCUMENT_FROM "WHERE d.id = ?");
    bind_uuid(s, c->id);
    int rc = stmt_row(s, e);
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, NO_DOCUMENT);
    if (rc < 0)
        return -1;
    int64_t no = col_i64(s), version = col_i64(s);
    stmt_end(s);
    if (version_is(version, c->if_version, e) < 0)
        return -1;
    return document_remove(db, no, e);
}

suspends int sqlite_document_delete(struct store *st, const struct uuid *id, int64_t if_version, struct err *e)
{
    struct delete_call c = {id, if_version};
    return sqlite_write(sqlite_of(st), delete, &c, e);
}
