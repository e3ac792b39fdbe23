/* A file of this machine on its way into a collection: read and hashed in a helper thread, then handed to the store with
 * its parts. For `ragd ingest` and the watched folder. */
#pragma once
#include "worker/store/store.h"

struct source {
    int fd;
    int64_t size;
    struct sha256 sha256;
    struct str inline_bytes; /* all of it, when it is at most STORE_PART long */
};

/* Takes `fd` over, also on failure, and reads the file once. A file that cannot become a document is ERR_VALIDATION and has
 * a word for reports in *refusal: not_a_file, empty_file, too_large, unreadable. */
suspends must_use int source_open(struct source *src, int fd, int64_t limit, struct arena *a, const char **refusal,
                                  struct err *e);
void source_close(struct source *src);

/* The document with this path (source_external_id()) as its external id, or, of a path that is too long for one, with
 * "path:sha256:" and the path's hash, gets these bytes, or is made; nothing happens when it has them. `metadata` is of one
 * that is made. Errors as those of the store; ERR_VALIDATION when the file changes meanwhile. */
suspends must_use int source_put(const struct source *src, struct store *store, struct arena *a,
                                 const struct uuid *collection, struct str path, struct str metadata,
                                 struct store_document *out, enum store_created *what, struct err *e);
/* Away, overloaded, or somebody else put or swept the same parts: worth another try. */
bool source_passing(enum err_code code);

enum { SOURCE_ID_MAX = 256 }; /* bytes of an external id */
/* Names are bytes, documents need UTF-8: what is not becomes %XX. */
struct str source_external_id(struct arena *a, struct str path);
