#include "worker/core/webhook.h"
#include "worker/io/base64.h"
#include "worker/io/crypto.h"
#include "worker/io/httpc.h"
#include "worker/io/json.h"
#include <stdlib.h>

const char *const webhook_events[] = {"document.ready", "document.failed", "document.*", "job.succeeded",
                                      "job.failed",     "job.cancelled",   "job.*"};
const size_t n_webhook_events = sizeof webhook_events / sizeof *webhook_events;

#define SECRET_PREFIX "whsec_"
enum { SECRET_MIN = 24, SECRET_MAX = 64, SECRET_NEW = 32 };

suspends int webhook_check_url(const struct backends *b, struct arena *a, struct str url, struct err *e)
{
    if (httpc_check_url(b->http, a, url, e) == 0)
        return 0;
    if (e->code == ERR_VALIDATION)
        e->code = ERR_BLOCKED_URL;
    return -1;
}

bool webhook_secret_valid(struct str secret)
{
    size_t prefix = strlen(SECRET_PREFIX);
    ptrdiff_t n = str_starts(secret, STR(SECRET_PREFIX)) ? base64_decoded_len(str_sub(secret, prefix, SIZE_MAX)) : -1;
    return n >= SECRET_MIN && n <= SECRET_MAX;
}

struct str webhook_secret_new(struct arena *a)
{
    uint8_t bytes[SECRET_NEW];
    random_bytes(bytes, sizeof bytes);
    struct str text = base64_encode(a, bytes, sizeof bytes);
    return arena_printf(a, SECRET_PREFIX STR_FMT, STR_ARG(text));
}

struct str webhook_body(struct arena *a, const struct store_delivery *d)
{
    struct buf b = {0};
    struct json_out o = json_out(&b);
    jo_begin(&o, '{');
    jo_member(&o, "id"), jo_uuid(&o, &d->id);
    jo_member(&o, "type"), jo_str(&o, d->type);
    jo_member(&o, "created_at"), jo_time(&o, d->created_us);
    jo_member(&o, "data"), jo_raw(&o, d->data);
    jo_end(&o, '}');
    struct str body = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return body;
}

struct str webhook_signature(struct arena *a, struct str secret, const struct uuid *id, int64_t seconds,
                             struct str body)
{
    uint8_t key[SECRET_MAX];
    struct str text = str_sub(secret, strlen(SECRET_PREFIX), SIZE_MAX);
    struct buf signed_text = {0};
    struct sha256 mac;
    char id_text[UUID_TEXT_LEN];
    uuid_text(id, id_text);
    base64_decode(text, key);
    buf_printf(&signed_text, "%.*s.%lld.", UUID_TEXT_LEN, id_text, (long long)seconds);
    buf_str(&signed_text, body);
    hmac_sha256((struct str){(const char *)key, (size_t)base64_decoded_len(text)}, buf_view(&signed_text), &mac);
    buf_fini(&signed_text);
    struct str encoded = base64_encode(a, mac.b, sizeof mac.b);
    return arena_printf(a, "v1," STR_FMT, STR_ARG(encoded));
}
