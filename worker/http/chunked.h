/* What stands around the data of a chunked body (RFC 9112 section 7.1): sizes, extensions, trailers. Strict, one byte
 * after the other, so that it makes no difference how the bytes were split on their way. The data itself never comes
 * by here: while state is CHUNK_DATA, the next `left` bytes are data, and chunked_data() says how many were taken. */
#pragma once
#include "common/err.h"
#include "common/str.h"
#include <sys/types.h>

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_SIZE_MORE,
    CHUNK_EXT,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER,
    CHUNK_TRAILER_NAME,
    CHUNK_TRAILER_VALUE,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_END
};

struct chunked {  /* all zero: at the start of a body */
    int64_t left; /* of the current chunk */
    enum chunk_state state;
    uint32_t overhead; /* bytes of extensions and trailers so far */
    uint8_t digits;    /* of the current size */
};

/* Takes bytes up to the next data or the end of the body: how many, or -1 with ERR_BAD_REQUEST. */
must_use ssize_t chunked_control(struct chunked *c, struct str in, struct err *e);
void chunked_data(struct chunked *c, size_t taken); /* at most c->left */
