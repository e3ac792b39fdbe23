/* What worker, broker and cage say to each other. The worker sends a request with three descriptors: the document, the
 * file for the result, and a socket. The cage writes the result, the broker sends a verdict over the socket. Whoever
 * reads the result takes it for what it is: bytes from a process that a stranger's file may have taken over. */
#pragma once
#include "common/err.h"
#include "worker/core/extract.h"

enum { CAGE_MAGIC = 0x52614331, CAGE_FDS = 3 };

struct cage_limits {
    int64_t memory, output; /* bytes */
    int32_t cpu_s, timeout_ms;
    bool required; /* nothing is read without filter and Landlock */
    bool faults;   /* debug.faults: documents may ask for one */
};

struct cage_request {
    uint32_t magic;
    struct cage_limits limits;
    char mime[256], filename[512]; /* NUL-terminated */
};

/* LACKS: ingest.sandbox is required, and the kernel has none. FAILED: no process was to be had. WALLS: those of this one
 * could not be raised; it has read nothing. */
enum cage_how { CAGE_DONE, CAGE_CRASHED, CAGE_MEMORY, CAGE_TIMEOUT, CAGE_LACKS, CAGE_FAILED, CAGE_WALLS };
/* What this kernel, or whoever confined the server itself, does not let the cage have. */
enum { LACKS_FILTER = 1, LACKS_LANDLOCK = 2, LACKS_NAMESPACES = 4 };

struct cage_verdict {
    uint32_t magic;
    enum cage_how how;
    int32_t signal; /* of a crash; 0: it left with an exit code */
    int32_t page;   /* where it was; 0: unknown */
    uint32_t lacks;
};

struct source;

/* Writes what came out of it, result or refusal. -1: it does not fit, or errno. */
must_use int wire_write(int fd, const struct source *s);
/* From the bytes of a result. ERR_VALIDATION with *code and *page: the document was refused. ERR_INTERNAL: it is no
 * result. What `out` refers to lies in `bytes` and in the arena. */
must_use int wire_read(struct arena *a, struct str bytes, struct extracted *out, const char **code, int *page,
                       struct err *e);
