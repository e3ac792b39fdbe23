/* Export and import: whole collections as lines of JSON, with files, texts, chunks and vectors. What one store wrote,
 * another reads, be it SQLite or PostgreSQL, with any vector index: documents and chunks keep their ids, nothing is parsed
 * and nothing is embedded again.
 *
 * The lines: {"type":"ragd","version":1}, then for each collection {"type":"collection",…} and for each of its documents
 * {"type":"document",…}, any number of {"type":"file","data"}, {"type":"text","data"} (base64, in order) and
 * {"type":"chunks","chunks":[…]}, and {"type":"end"}; {"type":"done","documents":N} last. What is cut off is noticed. */
#pragma once
#include "worker/core/backends.h"

enum { EXPORT_VERSION = 1 };

struct export_sink {                                               /* below 0: an error, and the export ends */
    suspends int (*fn)(void *arg, struct str line, struct err *e); /* one line, without its end */
    /* The lines since the last call are whole, or are to be forgotten: their document has changed while it was read. */
    suspends int (*settle)(void *arg, bool whole, struct err *e);
    void *arg;
};
suspends must_use int export_begin(const struct export_sink *to, struct err *e);
/* One collection with its documents, each of one version, as it is when its turn comes; *documents is increased.
 * ERR_CONFLICT: a document changes all the time. ERR_NOT_FOUND: the collection was deleted meanwhile. */
suspends must_use int export_collection(const struct backends *b, const struct store_collection *c,
                                        const struct export_sink *to, int64_t *documents, struct err *e);
suspends must_use int export_end(const struct export_sink *to, int64_t documents, struct err *e);

/* An import takes line by line. Documents that are there already are passed over, so one that was interrupted can be
 * repeated. */
struct import;
struct import_counts {
    int64_t collections, documents, present, chunks, vectors; /* present: were there already */
};
struct import *import_new(const struct backends *b);
suspends must_use int import_line(struct import *m, struct str line, struct err *e);
/* ERR_VALIDATION when the last line was not the end of an export. */
must_use int import_end(const struct import *m, struct err *e);
const struct import_counts *import_counts(const struct import *m);
void import_free(struct import *m);
