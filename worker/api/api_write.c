#include "worker/api/api.h"

static void write_optional(struct json_out *o, struct str v)
{
    v.n ? jo_str(o, v) : jo_null(o);
}

static void write_sha256(struct json_out *o, const struct sha256 *s)
{
    char hex[SHA256_TEXT_LEN];
    sha256_text(s, hex);
    jo_str(o, (struct str){hex, sizeof hex});
}

static void write_json_object(struct json_out *o, struct str json)
{
    jo_raw(o, json.n ? json : STR("{}"));
}

static void write_embedder(struct json_out *o, struct str model, int dim)
{
    if (!model.n) {
        jo_null(o);
        return;
    }
    jo_begin(o, '{');
    jo_member(o, "name"), jo_str(o, model);
    jo_member(o, "dim"), jo_i64(o, dim);
    jo_end(o, '}');
}

static void write_generation(struct json_out *o, const struct store_generation *g, bool complete)
{
    if (!g->no) {
        jo_null(o);
        return;
    }
    jo_begin(o, '{');
    jo_member(o, "generation"), jo_i64(o, g->no);
    jo_member(o, "embedder"), write_embedder(o, g->embedder, g->dim);
    jo_member(o, "complete"), jo_bool(o, complete);
    jo_end(o, '}');
}

void api_write_collection(struct json_out *o, const struct store_collection *c)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &c->id);
    jo_member(o, "object"), jo_strz(o, "collection");
    jo_member(o, "name"), jo_str(o, c->name);
    jo_member(o, "description"), jo_str(o, c->description);
    jo_member(o, "language"), write_optional(o, c->language);
    jo_member(o, "chunking"), jo_raw(o, c->chunking.n > 2 ? c->chunking : STR("{\"type\":\"auto\"}"));
    jo_member(o, "metadata"), write_json_object(o, c->metadata);
    jo_member(o, "embedder"), write_embedder(o, c->embedder, c->dim);
    jo_member(o, "generation"), jo_i64(o, c->embedder.n ? c->generation : 0);
    jo_member(o, "shadow"), write_generation(o, &c->shadow, c->shadow_built);
    jo_member(o, "previous"), write_generation(o, &c->previous, true);
    jo_member(o, "status"), jo_strz(o, "ready");
    jo_member(o, "counts"), jo_begin(o, '{');
    jo_member(o, "documents"), jo_i64(o, c->documents);
    jo_member(o, "chunks"), jo_i64(o, c->chunks);
    jo_member(o, "bytes"), jo_i64(o, c->bytes);
    jo_member(o, "failed"), jo_i64(o, c->failed);
    jo_end(o, '}');
    jo_member(o, "version"), jo_i64(o, c->version);
    jo_member(o, "created_at"), jo_time(o, uuid_time_us(&c->id));
    jo_member(o, "updated_at"), jo_time(o, c->updated_us);
    jo_end(o, '}');
}

static void write_document_error(struct json_out *o, const struct store_document *d)
{
    if (!d->error_code.n) {
        jo_null(o);
        return;
    }
    jo_begin(o, '{');
    jo_member(o, "code"), jo_str(o, d->error_code);
    jo_member(o, "stage"), write_optional(o, d->error_stage);
    jo_member(o, "message"), jo_str(o, d->error_message);
    jo_member(o, "page"), d->error_page ? jo_i64(o, d->error_page) : jo_null(o);
    jo_end(o, '}');
}

void api_write_document(struct json_out *o, const struct store_document *d)
{
    enum { USUAL_SIZE = 1024 };
    static const struct uuid none;
    buf_reserve(o->b, USUAL_SIZE + d->metadata.n + d->tags.n);
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &d->id);
    jo_member(o, "object"), jo_raw(o, STR("\"document\""));
    jo_member(o, "collection_id"), jo_uuid(o, &d->collection);
    jo_member(o, "external_id"), write_optional(o, d->external_id);
    jo_member(o, "filename"), write_optional(o, d->filename);
    jo_member(o, "title"), write_optional(o, d->title);
    jo_member(o, "mime"), write_optional(o, d->mime);
    jo_member(o, "language"), write_optional(o, d->language);
    jo_member(o, "bytes"), jo_i64(o, d->bytes);
    jo_member(o, "sha256"), write_sha256(o, &d->sha256);
    jo_member(o, "pages"), jo_i64(o, d->pages);
    jo_member(o, "chunks"), jo_i64(o, d->chunks);
    jo_member(o, "tokens"), jo_i64(o, d->tokens);
    jo_member(o, "tags"), jo_raw(o, d->tags.n ? d->tags : STR("[]"));
    jo_member(o, "metadata"), write_json_object(o, d->metadata);
    jo_member(o, "status"), jo_strz(o, document_state_name(d->state));
    jo_member(o, "progress"), jo_begin(o, '{');
    jo_member(o, "done"), jo_i64(o, d->progress_done);
    jo_member(o, "total"), jo_i64(o, d->progress_total);
    jo_end(o, '}');
    jo_member(o, "last_error"), write_document_error(o, d);
    jo_member(o, "version"), jo_i64(o, d->version);
    jo_member(o, "versions"), jo_i64(o, d->content_version);
    jo_member(o, "job_id"), uuid_eq(&d->job, &none) ? jo_null(o) : jo_uuid(o, &d->job);
    jo_member(o, "created_at"), jo_time(o, uuid_time_us(&d->id));
    jo_member(o, "updated_at"), jo_time(o, d->updated_us);
    jo_end(o, '}');
}

static void write_job_error(struct json_out *o, const struct store_job *j)
{
    if (!j->error_code.n) {
        jo_null(o);
        return;
    }
    jo_begin(o, '{');
    jo_member(o, "code"), jo_str(o, j->error_code);
    jo_member(o, "stage"), write_optional(o, j->error_stage);
    jo_member(o, "message"), jo_str(o, j->error_message);
    jo_end(o, '}');
}

void api_write_job(struct json_out *o, const struct store_job *j)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &j->id);
    jo_member(o, "object"), jo_strz(o, "job");
    jo_member(o, "type"), jo_str(o, j->type);
    jo_member(o, "status"), jo_strz(o, job_state_name(j->state));
    jo_member(o, "cancel_requested"), jo_bool(o, j->cancel_requested);
    jo_member(o, "progress"), jo_begin(o, '{');
    jo_member(o, "done"), jo_i64(o, j->done);
    jo_member(o, "total"), jo_i64(o, j->total);
    jo_member(o, "stage"), write_optional(o, j->stage);
    jo_end(o, '}');
    jo_member(o, "attempts"), jo_i64(o, j->attempts);
    jo_member(o, "error"), write_job_error(o, j);
    jo_member(o, "result");
    j->state == JOB_succeeded && j->error_message.n ? jo_raw(o, j->error_message) : jo_null(o);
    jo_member(o, "document_id"), j->has_document ? jo_uuid(o, &j->document) : jo_null(o);
    jo_member(o, "collection_id"), j->has_collection ? jo_uuid(o, &j->collection) : jo_null(o);
    jo_member(o, "created_at"), jo_time(o, uuid_time_us(&j->id));
    jo_member(o, "started_at"), jo_time(o, j->started_us);
    jo_member(o, "finished_at"), jo_time(o, j->finished_us);
    jo_member(o, "lease_expires_at"), jo_time(o, j->state == JOB_running ? j->lease_expires_us : 0);
    jo_end(o, '}');
}

static void write_span(struct json_out *o, const struct store_span *s)
{
    if (s->byte_end == 0) {
        jo_null(o);
        return;
    }
    jo_begin(o, '{');
    jo_member(o, "char_start"), jo_i64(o, s->char_start);
    jo_member(o, "char_end"), jo_i64(o, s->char_end);
    jo_member(o, "byte_start"), jo_i64(o, s->byte_start);
    jo_member(o, "byte_end"), jo_i64(o, s->byte_end);
    jo_end(o, '}');
}

void api_write_chunk(struct json_out *o, const struct store_chunk *c)
{
    jo_begin(o, '{');
    jo_member(o, "id"), jo_uuid(o, &c->id);
    jo_member(o, "object"), jo_strz(o, "chunk");
    jo_member(o, "document_id"), jo_uuid(o, &c->document);
    jo_member(o, "ordinal"), jo_i64(o, c->ordinal);
    jo_member(o, "text"), jo_str(o, c->text);
    jo_member(o, "tokens"), jo_i64(o, c->tokens);
    jo_member(o, "page"), c->page ? jo_i64(o, c->page) : jo_null(o);
    jo_member(o, "char_start"), jo_i64(o, c->char_start);
    jo_member(o, "char_end"), jo_i64(o, c->char_end);
    jo_member(o, "byte_start"), jo_i64(o, c->byte_start);
    jo_member(o, "byte_end"), jo_i64(o, c->byte_end);
    jo_member(o, "headings"), jo_raw(o, c->headings.n ? c->headings : STR("[]"));
    jo_member(o, "parent"), write_span(o, &c->parent);
    jo_member(o, "sha256"), write_sha256(o, &c->sha256);
    jo_end(o, '}');
}

void api_write_error(struct json_out *o, const struct err *e)
{
    jo_begin(o, '{');
    jo_member(o, "code"), jo_strz(o, err_wire(e->code));
    jo_member(o, "message"), jo_strz(o, e->msg);
    if (e->pointer[0])
        jo_member(o, "pointer"), jo_strz(o, e->pointer);
    jo_end(o, '}');
}
