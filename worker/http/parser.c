#include "worker/http/parser.h"

enum { EMPTY_LINES_MAX = 4 };

enum { TOKEN = 1, TARGET = 2, VALUE = 4, HOST = 8, HEX = 16 };

#define ALPHA  (TOKEN | TARGET | VALUE | HOST)
#define ALPHAX (ALPHA | HEX)
/* TOKEN: RFC 9110 section 5.6.2. TARGET: RFC 3986's characters, and the ones that browsers send raw ("|", "^", "`", "{",
 * "}"); never space, controls, quotes, "<", ">", "\" or a fragment. VALUE: field values: HTAB, SP, visible, obs-text. */
static const uint8_t class[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = TOKEN | TARGET | VALUE | HOST,
    ['"'] = VALUE,
    ['#'] = TOKEN | VALUE,
    ['$'] = TOKEN | TARGET | VALUE | HOST,
    ['%'] = TOKEN | TARGET | VALUE | HOST,
    ['&'] = TOKEN | TARGET | VALUE | HOST,
    ['\''] = TOKEN | TARGET | VALUE | HOST,
    ['('] = TARGET | VALUE | HOST,
    [')'] = TARGET | VALUE | HOST,
    ['*'] = TOKEN | TARGET | VALUE | HOST,
    ['+'] = TOKEN | TARGET | VALUE | HOST,
    [','] = TARGET | VALUE | HOST,
    ['-'] = TOKEN | TARGET | VALUE | HOST,
    ['.'] = TOKEN | TARGET | VALUE | HOST,
    ['/'] = TARGET | VALUE,
    ['0' ... '9'] = ALPHAX,
    [':'] = TARGET | VALUE,
    [';'] = TARGET | VALUE | HOST,
    ['<'] = VALUE,
    ['='] = TARGET | VALUE | HOST,
    ['>'] = VALUE,
    ['?'] = TARGET | VALUE,
    ['@'] = TARGET | VALUE,
    ['A' ... 'F'] = ALPHAX,
    ['G' ... 'Z'] = ALPHA,
    ['['] = TARGET | VALUE,
    ['\\'] = VALUE,
    [']'] = TARGET | VALUE,
    ['^'] = TOKEN | TARGET | VALUE,
    ['_'] = TOKEN | TARGET | VALUE | HOST,
    ['`'] = TOKEN | TARGET | VALUE,
    ['a' ... 'f'] = ALPHAX,
    ['g' ... 'z'] = ALPHA,
    ['{'] = TARGET | VALUE,
    ['|'] = TOKEN | TARGET | VALUE,
    ['}'] = TARGET | VALUE,
    ['~'] = TOKEN | TARGET | VALUE | HOST,
    [0x80 ... 0xff] = VALUE,
};

static bool all_of(struct str s, uint8_t mask)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(class[(uint8_t)s.p[i]] & mask))
            return false;
    return true;
}

bool parser_is_token(struct str s)
{
    return s.n && all_of(s, TOKEN);
}

/* ---- the end of the head ---- */

static int line_too_long(const struct parser *p, const struct parser_limits *l, struct err *e)
{
    if (p->lines == 0)
        return err_set(e, ERR_URI_TOO_LONG, "the request line is longer than http.max_request_line, %u bytes",
                       l->request_line);
    return err_set(e, ERR_HEADERS, "the header section is longer than http.max_headers_size, %u bytes",
                   l->header_bytes);
}

int parser_scan(struct parser *p, struct str in, const struct parser_limits *l, struct err *e)
{
    for (;;) {
        uint32_t bound = p->lines ? p->fields + l->header_bytes : p->skip + l->request_line;
        const char *nl = p->scanned < in.n ? memchr(in.p + p->scanned, '\n', in.n - p->scanned) : NULL;
        uint32_t end = nl ? (uint32_t)(nl - in.p) : (uint32_t)in.n;
        if (p->line < in.n && p->lines == 0 && in.p[p->line] != '\r' && !(class[(uint8_t)in.p[p->line]] & TOKEN))
            return err_set(e, ERR_BAD_REQUEST, "this is not an HTTP request"); /* TLS, say, to the wrong port */
        if (end > bound)
            return line_too_long(p, l, e);
        p->scanned = end;
        if (!nl)
            return 0;
        if (end == p->line || in.p[end - 1] != '\r')
            return err_set(e, ERR_BAD_REQUEST, "a line ends with LF alone");
        p->scanned = end + 1;
        bool empty = end - 1 == p->line;
        p->line = end + 1;
        if (empty && p->lines)
            return (int)p->scanned;
        if (empty) { /* RFC 9112 section 2.2: some clients send an empty line after a body */
            p->skip = (uint16_t)p->scanned;
            if (p->skip > 2 * EMPTY_LINES_MAX)
                return err_set(e, ERR_BAD_REQUEST, "empty lines where a request should be");
            continue;
        }
        if (!p->lines)
            p->fields = p->line;
        if (p->lines++ > l->headers)
            return err_set(e, ERR_HEADERS, "more header fields than http.max_headers, %u", l->headers);
    }
}

/* ---- taking it apart ---- */

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_BAD_REQUEST, "%s", what);
}

static int method_of(struct str s)
{
    for (int m = 0; m < HTTP_METHOD_COUNT; m++)
        if (str_eq(s, http_method_name((enum http_method)m)))
            return m;
    return -1;
}

static int request_line(struct str line, struct head *h, struct err *e)
{
    struct str rest = line;
    h->method_name = str_cut(&rest, ' ');
    if (!parser_is_token(h->method_name))
        return bad(e, "the method is not a token");
    h->method = method_of(h->method_name);
    h->target = str_cut(&rest, ' ');
    if (!h->target.n || !all_of(h->target, TARGET))
        return bad(e, "the request target has characters that must be percent-encoded, or is missing");
    if (rest.n != 8 || memcmp(rest.p, "HTTP/", 5) != 0 || rest.p[6] != '.' || rest.p[5] < '0' || rest.p[5] > '9' ||
        rest.p[7] < '0' || rest.p[7] > '9')
        return bad(e, "the request line must be: method, one space, target, one space, HTTP/1.1");
    if (rest.p[5] != '1' || rest.p[7] > '1')
        return err_set(e, ERR_HTTP_VERSION, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    h->minor = rest.p[7] - '0';
    h->keep_alive = h->minor == 1;
    return 0;
}

/* What the fields that decide on framing have said so far. */
struct framing {
    int hosts, lengths, codings;
    bool close, keep_alive, chunked_last, unknown_coding;
};

static int content_length(struct str v, struct head *h, struct framing *f, struct err *e)
{
    uint64_t n;
    if (f->lengths++)
        return bad(e, "more than one Content-Length");
    if (!str_to_u64(v, &n) || n > INT64_MAX)
        return bad(e, "Content-Length is not a number");
    h->content_length = (int64_t)n;
    return 0;
}

static int transfer_encoding(struct str v, struct framing *f, struct err *e)
{
    do {
        struct str coding = str_trim(str_cut(&v, ','));
        if (f->chunked_last)
            return bad(e, "chunked must be the last transfer coding, and stand there once");
        f->codings++;
        if (str_ieq(coding, STR("chunked")))
            f->chunked_last = true;
        else if (!coding.n)
            return bad(e, "Transfer-Encoding has an empty element");
        else
            f->unknown_coding = true;
    } while (v.n);
    return 0;
}

static void connection(struct str v, struct framing *f)
{
    while (v.n) {
        struct str option = str_trim(str_cut(&v, ','));
        f->close |= str_ieq(option, STR("close"));
        f->keep_alive |= str_ieq(option, STR("keep-alive"));
    }
}

/* A field that matters here. The length is compared first: most fields differ already in that. */
static int known_field(struct str name, struct str v, struct head *h, struct framing *f, struct err *e)
{
    switch (name.n) {
    case 4:
        if (str_ieq(name, STR("host"))) {
            if (f->hosts++)
                return bad(e, "more than one Host");
            if (!parser_is_host(v))
                return bad(e, "Host is not a host name with an optional port");
            h->host = v;
        }
        break;
    case 6:
        if (str_ieq(name, STR("expect"))) {
            if (!str_ieq(v, STR("100-continue")))
                return err_set(e, ERR_EXPECTATION, "the only expectation that can be met is 100-continue");
            h->expect_continue = true;
        }
        break;
    case 10:
        if (str_ieq(name, STR("connection")))
            connection(v, f);
        break;
    case 14:
        if (str_ieq(name, STR("content-length")))
            return content_length(v, h, f, e);
        break;
    case 17:
        if (str_ieq(name, STR("transfer-encoding")))
            return transfer_encoding(v, f, e);
        break;
    }
    return 0;
}

/* RFC 9112 section 6.3, and section 11.2 on smuggling. */
static int framing_end(struct head *h, const struct framing *f, struct err *e)
{
    if (h->minor == 1 && !f->hosts)
        return bad(e, "Host is missing");
    if (f->codings && h->minor == 0)
        return bad(e, "Transfer-Encoding in HTTP/1.0");
    if (f->codings && f->lengths)
        return bad(e, "both Content-Length and Transfer-Encoding");
    if (f->codings && !f->chunked_last)
        return bad(e, "the last transfer coding must be chunked");
    if (f->unknown_coding)
        return err_set(e, ERR_NOT_IMPLEMENTED, "the only transfer coding that is understood is chunked");
    h->chunked = f->chunked_last;
    h->keep_alive = !f->close && (h->minor == 1 || f->keep_alive);
    if (h->minor == 0)
        h->expect_continue = false;
    return 0;
}

static int header_line(struct str line, struct head *h, struct framing *f, struct err *e)
{
    const char *colon = memchr(line.p, ':', line.n);
    if (line.p[0] == ' ' || line.p[0] == '\t')
        return bad(e, "a header field is folded over several lines");
    if (!colon)
        return bad(e, "a header line without a colon");
    struct str name = {line.p, (size_t)(colon - line.p)};
    struct str value = str_sub(line, name.n + 1, SIZE_MAX);
    if (!parser_is_token(name))
        return bad(e, "a header field name has a space or another character that is not allowed there");
    if (!all_of(value, VALUE))
        return bad(e, "a header field value has a control character");
    value = str_trim(value);
    h->header[h->n_header++] = (struct header){name, value};
    return known_field(name, value, h, f, e);
}

int parser_head(struct str in, struct head *h, struct err *e)
{
    struct framing f = {0};
    bool first = true;
    h->content_length = -1;
    h->method = -1;
    while (in.n > 2) {
        const char *nl = memchr(in.p, '\n', in.n); /* parser_scan() has seen CR before every LF */
        struct str line = {in.p, (size_t)(nl - in.p) - 1};
        in = str_sub(in, line.n + 2, SIZE_MAX);
        if (first ? request_line(line, h, e) : header_line(line, h, &f, e))
            return -1;
        first = false;
    }
    return framing_end(h, &f, e);
}

/* ---- Host ---- */

static bool ipv6_literal(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(class[(uint8_t)s.p[i]] & HEX) && s.p[i] != ':' && s.p[i] != '.')
            return false;
    return s.n >= 2;
}

static bool is_port(struct str s)
{
    uint64_t n;
    return !s.n || (str_to_u64(s, &n) && n <= 65535);
}

bool parser_is_host(struct str s)
{
    struct str rest = s, name;
    if (!s.n)
        return true;
    if (s.p[0] == '[') {
        rest = str_sub(s, 1, SIZE_MAX);
        name = str_cut(&rest, ']');
        if (name.n + 1 == s.n || !ipv6_literal(name)) /* no closing bracket */
            return false;
        return !rest.n || (rest.p[0] == ':' && is_port(str_sub(rest, 1, SIZE_MAX)));
    }
    name = str_cut(&rest, ':');
    return name.n && all_of(name, HOST) && is_port(rest);
}
