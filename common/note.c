#include "common/note.h"
#include "common/clock.h"
#include <stdio.h>

enum { WORDS = sizeof(struct note) / sizeof(uint64_t), PATIENCE = 1000 };
_Static_assert(sizeof(struct note) % sizeof(uint64_t) == 0, "the note is copied in words");
_Static_assert(sizeof(struct note) <= sizeof(uint64_t) * SCORE_NOTE_WORDS, "the scoreboard has room for the note");

void verdict_set(struct verdict *v, int64_t start_ns, const char *failed_stage, const char *reason)
{
    int64_t took_ns = clock_ns() - start_ns;
    memset(v, 0, sizeof *v);
    v->at_us = clock_wall_us() - took_ns / 1000;
    v->took_ms = took_ns / MS;
    v->ok = !failed_stage;
    snprintf(v->stage, sizeof v->stage, "%s", failed_stage ? failed_stage : "");
    snprintf(v->reason, sizeof v->reason, "%s", reason ? reason : "");
    str_utf8_fix(v->reason); /* it may quote what somebody wrote, and be cut within a character */
}

static void copy_out(uint64_t to[WORDS], const _Atomic uint64_t *from)
{
    for (int i = 0; i < WORDS; i++)
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

void note_write(struct scoreboard *sb, const struct note *n)
{
    uint64_t now[WORDS], before[WORDS];
    memcpy(now, n, sizeof now);
    copy_out(before, sb->note);
    uint32_t version = atomic_load_explicit(&sb->note_version, memory_order_relaxed);
    if (memcmp(now, before, sizeof now) == 0 && !(version & 1))
        return;
    version &= ~1U; /* odd: somebody else has written there */
    atomic_store_explicit(&sb->note_version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < WORDS; i++)
        atomic_store_explicit(&sb->note[i], now[i], memory_order_relaxed);
    atomic_store_explicit(&sb->note_version, version + 2, memory_order_release);
}

#define TEXT(field) str_utf8_end(field, sizeof(field))

/* Whatever was in the scoreboard: it can be told. */
static void check(struct note *n)
{
    n->n_listen = n->n_listen < 0 ? 0 : n->n_listen > LISTEN_MAX ? LISTEN_MAX : n->n_listen;
    TEXT(n->version);
    TEXT(n->phase);
    TEXT(n->config);
    TEXT(n->sha256);
    TEXT(n->reload.stage);
    TEXT(n->reload.reason);
    TEXT(n->upgrade.stage);
    TEXT(n->upgrade.reason);
    for (int i = 0; i < LISTEN_MAX; i++)
        TEXT(n->listen[i].name);
}

bool note_read(const struct scoreboard *sb, struct note *out)
{
    uint64_t words[WORDS];
    for (int i = 0; i < PATIENCE; i++) {
        uint32_t version = atomic_load_explicit(&sb->note_version, memory_order_acquire);
        if (version & 1)
            continue;
        copy_out(words, sb->note);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&sb->note_version, memory_order_relaxed) != version)
            continue;
        memcpy(out, words, sizeof *out);
        check(out);
        return true;
    }
    memset(out, 0, sizeof *out);
    return false;
}
