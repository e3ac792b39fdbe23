#include "worker/store/store.h"
#include "common/scoreboard.h"
#include "worker/io/pg.h"
#include <stdio.h>

static const char *const document_states[DOCUMENT_STATE_COUNT] = {
#define X(name) #name,
    DOCUMENT_STATES(X)
#undef X
};
static const char *const job_states[JOB_STATE_COUNT] = {
#define X(name) #name,
    JOB_STATES(X)
#undef X
};

static const char *const delivery_states[DELIVERY_STATE_COUNT] = {
#define X(name) #name,
    DELIVERY_STATES(X)
#undef X
};

void store_asked(const char *verb)
{
    struct fiber *f = fiber_self();
    flight_asks(f ? fiber_data(f) : NULL, verb); /* dispatch.c has put it there */
}

static bool find_name(const char *const *names, int n, struct str s, int *out)
{
    for (int i = 0; i < n; i++)
        if (str_eqz(s, names[i])) {
            *out = i;
            return true;
        }
    return false;
}

const char *document_state_name(enum document_state s)
{
    return document_states[s];
}

bool document_state_parse(struct str s, enum document_state *out)
{
    int i;
    if (!find_name(document_states, DOCUMENT_STATE_COUNT, s, &i))
        return false;
    *out = (enum document_state)i;
    return true;
}

const char *job_state_name(enum job_state s)
{
    return job_states[s];
}

const char *delivery_state_name(enum delivery_state s)
{
    return delivery_states[s];
}

bool job_state_parse(struct str s, enum job_state *out)
{
    int i;
    if (!find_name(job_states, JOB_STATE_COUNT, s, &i))
        return false;
    *out = (enum job_state)i;
    return true;
}

struct uuid store_chunk_id(const struct uuid *document, int64_t content_version, int ordinal)
{
    uint8_t in[sizeof *document + 8 + 4];
    struct sha256 hash;
    struct uuid id;
    memcpy(in, document, sizeof *document);
    for (int i = 0; i < 8; i++)
        in[16 + i] = (uint8_t)((uint64_t)content_version >> (56 - 8 * i));
    for (int i = 0; i < 4; i++)
        in[24 + i] = (uint8_t)((uint32_t)ordinal >> (24 - 8 * i));
    sha256_of(in, sizeof in, &hash);
    memcpy(id.b, hash.b, sizeof id.b);
    id.b[6] = (id.b[6] & 0x0f) | 0x80; /* version 8: its bits are the maker's affair */
    id.b[8] = (id.b[8] & 0x3f) | 0x80;
    return id;
}

static suspends int open_product(const struct config *cfg, bool unchanged, struct store **out, struct err *e)
{
    struct str path = str_of(cfg->database_url), scheme = str_cut(&path, ':'); /* config/ has checked it */
    if (str_eqz(scheme, "sqlite"))
        return store_sqlite_open(cfg, path.p, unchanged, out, e);
    return store_pg_open(cfg, unchanged, out, e);
}

int store_check(const struct config *cfg, struct err *e)
{
    return str_starts(str_of(cfg->database_url), STR("postgresql:")) ? pg_check_url(cfg, e) : 0;
}

suspends int store_open(const struct config *cfg, struct store **out, struct err *e)
{
    return open_product(cfg, false, out, e);
}

suspends int store_open_unchanged(const struct config *cfg, struct store **out, struct err *e)
{
    struct store *s;
    if (open_product(cfg, true, &s, e) < 0)
        return -1;
    if (STORE_CALL(s, check, e) < 0) {
        store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void store_drain(struct store *s)
{
    if (s && s->ops->drain)
        s->ops->drain(s);
}

void store_cancel(struct store *s)
{
    if (s && s->ops->cancel)
        s->ops->cancel(s);
}

bool store_leave(struct store *s)
{
    return !s || !s->ops->leave || s->ops->leave(s);
}

void store_close(struct store *s)
{
    if (s)
        s->ops->free(s);
}
