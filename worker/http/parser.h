/* The HTTP/1.1 request head (RFC 9112), strict: what two servers could read in two ways is an error. Works in two steps
 * on bytes that stay where they are: parser_scan() looks for the end of the head, as often as new bytes come, and never
 * looks at a byte twice; parser_head() then takes the complete head apart into slices. How the bytes were split on
 * their way makes no difference to the outcome. Nothing here allocates or parks. */
#pragma once
#include "common/err.h"
#include "worker/http/http.h"

struct parser { /* all zero: at the start of a head */
    uint32_t scanned;
    uint32_t line;   /* where the current line starts */
    uint32_t fields; /* where the header section starts; 0: not yet there */
    uint16_t lines;  /* complete ones; the first is the request line */
    uint16_t skip;   /* bytes of empty lines before the request line */
};

struct parser_limits {
    uint32_t request_line, header_bytes, headers;
};

/* > 0: the head is complete and that long; 0: more bytes are needed; -1: ERR_BAD_REQUEST, ERR_URI_TOO_LONG or
 * ERR_HEADERS, and the connection must end. */
must_use int parser_scan(struct parser *p, struct str in, const struct parser_limits *l, struct err *e);

struct head {
    int method; /* enum http_method; -1: a valid token that we do not know */
    int minor;
    struct str method_name, target;
    struct header *header; /* room for parser.lines of them */
    size_t n_header;
    struct str host;
    int64_t content_length; /* -1: none */
    bool chunked, keep_alive, expect_continue;
};

/* `in` is the complete head, its empty lines before the request line skipped. On failure method_name and target are
 * set as far as they were read, for the log. Errors: ERR_BAD_REQUEST, ERR_HTTP_VERSION, ERR_NOT_IMPLEMENTED,
 * ERR_EXPECTATION. */
must_use int parser_head(struct str in, struct head *out, struct err *e);

/* Whether every byte is one of RFC 9110's token; false for the empty slice. */
bool parser_is_token(struct str s);
/* A Host: reg-name, IPv4 or [IPv6], optionally with a port. May be empty. */
bool parser_is_host(struct str s);
