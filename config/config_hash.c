/* The fingerprint of the settings in effect. It is shown to people who may not see the settings, so it must not help in
 * guessing a password: what is secret goes in by way of a function that is slow on purpose. */
#include "config/config_impl.h"
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOW = 20000, DIGEST = 32 };

/* libcrypto fails here only when memory is out or SHA-256 is not built in: neither can be answered. */
static void need(bool ok)
{
    if (!ok)
        abort();
}

static void hex(struct buf *out, const unsigned char digest[DIGEST])
{
    for (int i = 0; i < DIGEST; i++)
        buf_printf(out, "%02x", digest[i]);
}

static void add_secret(struct buf *all, const char *value)
{
    unsigned char digest[DIGEST];
    need(PKCS5_PBKDF2_HMAC(value, (int)strlen(value), (const unsigned char *)all->p, (int)all->n, SLOW, EVP_sha256(),
                           sizeof digest, digest) == 1);
    hex(all, digest);
}

void config_sha256(const struct config *cfg, char out[CONFIG_SHA256_LEN + 1])
{
    unsigned char digest[DIGEST];
    struct buf all = {0}, text = {0};
    for (int k = 0; k < KEY_COUNT; k++) {
        text.n = 0;
        config_text(cfg, (enum config_key)k, &text);
        buf_printf(&all, "%s=%.*s\n", config_keys[k].full, (int)text.n, text.p ? text.p : "");
        if (config_keys[k].type != CONFIG_SECRET)
            continue;
        const char *value = *(const char *const *)config_value(cfg, (enum config_key)k);
        if (!str_eqz(buf_view(&text), value)) /* else nothing of it was redacted */
            add_secret(&all, value);
    }
    need(EVP_Digest(all.p, all.n, digest, NULL, EVP_sha256(), NULL) == 1);
    text.n = 0;
    hex(&text, digest);
    str_copyz(out, CONFIG_SHA256_LEN + 1, buf_view(&text));
    buf_fini(&text);
    buf_fini(&all);
}
