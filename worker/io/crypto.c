#include "worker/io/crypto.h"
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <sys/random.h>

/* libcrypto fails here only when memory is out or the algorithm is not built in: neither can be answered. */
static void need(bool ok)
{
    if (!ok)
        abort();
}

/* Fetched once: an implicit fetch at every digest costs more than the digest of a small body. */
static const EVP_MD *sha256_md(void)
{
    static EVP_MD *md;
    if (!md)
        need((md = EVP_MD_fetch(NULL, "SHA256", NULL)) != NULL);
    return md;
}

void sha256_of(const void *p, size_t n, struct sha256 *out)
{
    need(EVP_Digest(p, n, out->b, NULL, sha256_md(), NULL) == 1);
}

struct sha256_ctx *sha256_new(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    need(c && EVP_DigestInit_ex2(c, sha256_md(), NULL) == 1);
    return (struct sha256_ctx *)c;
}

void sha256_add(struct sha256_ctx *c, const void *p, size_t n)
{
    need(EVP_DigestUpdate((EVP_MD_CTX *)c, p, n) == 1);
}

void sha256_end(struct sha256_ctx *c, struct sha256 *out)
{
    need(EVP_DigestFinal_ex((EVP_MD_CTX *)c, out->b, NULL) == 1);
}

void sha256_free(struct sha256_ctx *c)
{
    EVP_MD_CTX_free((EVP_MD_CTX *)c);
}

void sha256_text(const struct sha256 *s, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof s->b; i++) {
        out[2 * i] = hex[s->b[i] >> 4];
        out[2 * i + 1] = hex[s->b[i] & 15];
    }
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool sha256_parse(struct str s, struct sha256 *out)
{
    struct sha256 v;
    if (s.n != SHA256_TEXT_LEN)
        return false;
    for (size_t i = 0; i < sizeof v.b; i++) {
        int hi = nibble(s.p[2 * i]), lo = nibble(s.p[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        v.b[i] = (uint8_t)(hi << 4 | lo);
    }
    *out = v;
    return true;
}

void hmac_sha256(struct str key, struct str message, struct sha256 *out)
{
    unsigned n = sizeof out->b;
    need(HMAC(sha256_md(), key.p, (int)key.n, (const unsigned char *)message.p, message.n, out->b, &n) != NULL);
}

/* getrandom(2): up to 256 bytes come whole, once the kernel's generator is ready. */
void random_bytes(void *out, size_t n)
{
    need(n <= 256 && getrandom(out, n, 0) == (ssize_t)n);
}
