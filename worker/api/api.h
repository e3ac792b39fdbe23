/* What the resources of the native API share: ids and paging from requests, the JSON of objects, validation of what
 * clients send about documents, waiting for jobs. One resource is one file, api_*.c; the handlers' prototypes come from
 * the table of routes. */
#pragma once
#include "worker/app.h"
#include "worker/http/http.h"
#include "worker/io/json.h"
#include "worker/jobs/jobs.h"
#include "worker/routes.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define JSON_TYPE    "application/json"
#define NDJSON_TYPE  "application/x-ndjson"

/* ---- from the request ---- */
/* The id in parameter `i` of the path. What is no id names nothing: ERR_NOT_FOUND "No document 'x'". */
must_use int api_id(struct request *r, size_t i, const char *what, struct uuid *out, struct err *e);
/* A collection by id or by name, as clients may say either. By id nothing is read: the store finds out. */
suspends must_use int api_collection_id(struct request *r, struct str which, struct uuid *out, struct err *e);
/* The collections that an array at /collections names, by ids or names; NULL: none. `out` has room for all. */
suspends must_use int api_collection_ids(struct request *r, const json_t *list, struct uuid *out, struct err *e);
/* Returns -1 always, after wording a store's ERR_NOT_FOUND for the client. */
int api_failed(const char *what, struct str which, struct err *e);

/* The body as a JSON object; ERR_MEDIA_TYPE if it says it is something else. `optional`: no body is an empty object. */
suspends must_use int api_body(struct request *r, bool optional, json_t **out, struct err *e);
/* The same for a body that carries a document: its member `text` apart, see json_parse_lifting(). */
suspends must_use int api_body_lifting(struct request *r, json_t **out, struct str *lifted, struct err *e);
/* A JSON object within limits.json_depth; a large one is parsed aside, so that nobody else waits for it. `lifted` NULL:
 * nothing is taken out. */
suspends must_use int api_parse(struct request *r, struct arena *a, struct str text, json_t **out, struct str *lifted,
                                struct err *e);
/* If-Match, or 0; ERR_PRECONDITION where http.require_if_match demands one. */
must_use int api_if_match(struct request *r, int64_t *version, struct err *e);
/* limit, after, before, order. */
#define API_PAGE_QUERY "limit", "after", "before", "order"
must_use int api_page(struct request *r, struct store_page *out, struct err *e);
/* A filter, from the body or from text in the query. `pointer`: where it stands. */
must_use int api_filter_text(struct request *r, struct str text, const struct filter **out, struct err *e);
/* Prefer: wait=N as nanoseconds, 0 without, and whether return=minimal was asked for. */
struct api_prefer {
    int64_t wait_ns;
    bool minimal;
};
struct api_prefer api_prefer(struct request *r);

/* ---- to the reply ---- */
struct json_out api_reply(struct request *r, int status); /* begins a JSON reply */
/* Location: server.base_path + formatted path. */
void api_location(struct request *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The envelope of every list: api_list_begin(), the elements, api_list_end(). */
struct json_out api_list_begin(struct request *r);
void api_list_end(struct json_out *o, const struct uuid *first, const struct uuid *last, bool more); /* NULL: empty */

void api_write_collection(struct json_out *o, const struct store_collection *c);
void api_write_document(struct json_out *o, const struct store_document *d);
void api_write_job(struct json_out *o, const struct store_job *j);
void api_write_chunk(struct json_out *o, const struct store_chunk *c);
/* {"code","message","pointer"} of one line of an import. */
void api_write_error(struct json_out *o, const struct err *e);

bool api_job_over(const struct store_job *j);
/* Announces a job that was queued, and waits for its end at most `wait_ns`, reading it again into `j`. 0 also when the
 * time is over; the caller looks at j->state. */
suspends must_use int api_job_await(struct request *r, int64_t wait_ns, struct store_job *j, struct err *e);
/* The reply of routes that queue a job: {job} with 202 and its Location, or 200 when Prefer: wait saw its end. */
suspends must_use int api_job_reply(struct request *r, struct store_job *j, struct err *e);

/* ---- validation ---- */
/* `text` must be valid, printable, at most `max` bytes. `what` names it in the message. */
must_use int api_check_text(struct str text, size_t max, const char *pointer, const char *what, struct err *e);
/* What has an id, too, and stands in paths: no id, no '/', no space at either end. */
must_use int api_check_name(struct str name, size_t max, struct err *e);
must_use int api_check_language(struct str language, const char *pointer, struct err *e);
/* Compact text of a metadata object, within limits.metadata. */
must_use int api_metadata(struct request *r, struct arena *a, json_t *object, const char *pointer, struct str *out,
                          struct err *e);
/* Compact text of an array of tags, without repetitions. */
must_use int api_tags(struct arena *a, json_t *array, const char *pointer, struct str *out, struct err *e);
/* RFC 7396: `patch` applied to the object whose text is `old`. */
must_use int api_merge(struct request *r, struct str old, json_t *patch, json_t **out, struct err *e);
