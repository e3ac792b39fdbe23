#include "worker/http/chunked.h"
#include "worker/http/parser.h"
#include <assert.h>
#include <stdlib.h>

enum { OVERHEAD_MAX = 16 * 1024, DIGITS_MAX = 32 };

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_BAD_REQUEST, "the chunked body is malformed: %s", what);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int size_digit(struct chunked *c, char byte, struct err *e)
{
    int d = hex_digit(byte);
    if (d >= 0) {
        if (c->left >> 58 || ++c->digits > DIGITS_MAX)
            return bad(e, "a chunk size is too large");
        c->left = c->left << 4 | d;
        c->state = CHUNK_SIZE_MORE;
        return 0;
    }
    if (c->state == CHUNK_SIZE || (byte != ';' && byte != '\r'))
        return bad(e, "a chunk size must be hexadecimal digits, then CRLF");
    c->digits = 0;
    c->state = byte == ';' ? CHUNK_EXT : CHUNK_SIZE_LF;
    return 0;
}

static bool is_text(char c)
{
    return (unsigned char)c >= ' ' || c == '\t' ? c != 0x7f : false;
}

/* One byte that is not data. */
static int control_byte(struct chunked *c, char byte, struct err *e)
{
    switch (c->state) {
    case CHUNK_SIZE:
    case CHUNK_SIZE_MORE: return size_digit(c, byte, e);
    case CHUNK_EXT:
        if (++c->overhead > OVERHEAD_MAX)
            return bad(e, "too many chunk extensions");
        if (byte == '\r')
            c->state = CHUNK_SIZE_LF;
        else if (!is_text(byte))
            return bad(e, "a control character in a chunk extension");
        return 0;
    case CHUNK_SIZE_LF:
        if (byte != '\n')
            return bad(e, "CR without LF after a chunk size");
        c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
        return 0;
    case CHUNK_DATA_CR:
        if (byte != '\r')
            return bad(e, "a chunk is longer than its size says");
        c->state = CHUNK_DATA_LF;
        return 0;
    case CHUNK_DATA_LF:
        if (byte != '\n')
            return bad(e, "CR without LF after a chunk");
        c->state = CHUNK_SIZE;
        return 0;
    case CHUNK_TRAILER: /* at the start of a line */
        if (byte == '\r') {
            c->state = CHUNK_END_LF;
            return 0;
        }
        c->state = CHUNK_TRAILER_NAME;
        if (byte == ':')
            return bad(e, "a trailer field without a name");
        /* fall through */
    case CHUNK_TRAILER_NAME:
        if (++c->overhead > OVERHEAD_MAX)
            return bad(e, "the trailer section is too long");
        if (byte == ':')
            c->state = CHUNK_TRAILER_VALUE;
        else if (!parser_is_token((struct str){&byte, 1}))
            return bad(e, "a trailer field name has a character that is not allowed there");
        return 0;
    case CHUNK_TRAILER_VALUE:
        if (++c->overhead > OVERHEAD_MAX)
            return bad(e, "the trailer section is too long");
        if (byte == '\r')
            c->state = CHUNK_TRAILER_LF;
        else if (!is_text(byte))
            return bad(e, "a control character in a trailer field");
        return 0;
    case CHUNK_TRAILER_LF:
        if (byte != '\n')
            return bad(e, "CR without LF in the trailer section");
        c->state = CHUNK_TRAILER;
        return 0;
    case CHUNK_END_LF:
        if (byte != '\n')
            return bad(e, "CR without LF at the end");
        c->state = CHUNK_END;
        return 0;
    case CHUNK_DATA:
    case CHUNK_END: break;
    }
    abort();
}

ssize_t chunked_control(struct chunked *c, struct str in, struct err *e)
{
    size_t i = 0;
    while (i < in.n && c->state != CHUNK_DATA && c->state != CHUNK_END)
        if (control_byte(c, in.p[i++], e))
            return -1;
    return (ssize_t)i;
}

void chunked_data(struct chunked *c, size_t taken)
{
    assert(c->state == CHUNK_DATA && (int64_t)taken <= c->left);
    c->left -= (int64_t)taken;
    if (!c->left)
        c->state = CHUNK_DATA_CR;
}
