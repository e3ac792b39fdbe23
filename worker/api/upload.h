/* One document on its way into the store: from a JSON object (a body, a line of an import) or from multipart, with its
 * members checked, its bytes hashed, and what is longer than a part put before the document itself. */
#pragma once
#include "worker/api/api.h"
#include "worker/core/given_vectors.h"
#include "worker/core/source.h"

enum { UPLOAD_TITLE_MAX = 512, UPLOAD_EXTERNAL_ID_MAX = SOURCE_ID_MAX, UPLOAD_FILENAME_MAX = 255 };

struct upload {
    struct store_document_new doc;
    struct spool *spool; /* the bytes, if they are not in `text` */
    struct str text, url;
    struct given_vectors vectors;
    const char *vectors_at; /* where they stand */
    bool policy_given;      /* on_duplicate; else skip, and link where an external id tells documents apart */
    bool named_by_url;      /* its external id is the URL, which nobody gave as one */
};

/* {"text", "chunks" or "url", …}, where `text` may have been lifted out of the object. Everything lives in `a`, and object
 * and text as long. Hashing is for upload_store(). */
suspends must_use int upload_from_json(struct request *r, struct arena *a, json_t *object, struct str text,
                                       struct upload *out, struct err *e);
/* The body of `r`. */
suspends must_use int upload_from_multipart(struct request *r, struct upload *out, struct err *e);
/* The caller has set collection, by_external_id and if_version in u->doc. */
suspends must_use int upload_store(struct request *r, struct arena *a, struct upload *u, struct store_document *d,
                                   enum store_created *what, struct store_job *job, struct err *e);
