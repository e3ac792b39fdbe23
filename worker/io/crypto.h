/* Hashes on OpenSSL's libcrypto, and random bytes. */
#pragma once
#include "common/str.h"

struct sha256 {
    uint8_t b[32];
};

void sha256_of(const void *p, size_t n, struct sha256 *out);

/* Incremental. */
struct sha256_ctx;
struct sha256_ctx *sha256_new(void);
void sha256_add(struct sha256_ctx *c, const void *p, size_t n);
void sha256_end(struct sha256_ctx *c, struct sha256 *out); /* may be called once */
void sha256_free(struct sha256_ctx *c);

#define SHA256_TEXT_LEN 64
void sha256_text(const struct sha256 *s, char *out); /* lower-case hex, no NUL */
bool sha256_parse(struct str s, struct sha256 *out);

void hmac_sha256(struct str key, struct str message, struct sha256 *out); /* RFC 2104 */
void random_bytes(void *out, size_t n);                                   /* fit for secrets; at most 256 */
