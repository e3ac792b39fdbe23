#include "common/scoreboard.h"
#include "common/clock.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAGIC = 0x52414744, VERSION = 3, WINDOW_S = 10 };

static struct slot private_slot;
struct slot *slot_self = &private_slot;
static struct scoreboard *self;
static unsigned mapped; /* slots of the one that is mapped: `capacity` is only what is written there */

/* What is asked for may come from shared memory. */
static const char *name_of(const char *const *names, size_t n, unsigned i)
{
    return i < n ? names[i] : "?";
}
#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof *(names), (unsigned)(i))

static const char *const state_names[] = {
#define X(name) #name,
    WORKER_STATES(X)
#undef X
};

const char *worker_state_name(enum worker_state state)
{
    return NAME_OF(state_names, state);
}

const char *role_name(enum role role)
{
    static const char *const names[ROLE_COUNT] = {"master", "http", "ingest", "status"};
    return NAME_OF(names, role);
}

const char *death_name(enum death why)
{
    static const char *const names[] = {
#define X(name) #name,
        DEATH_REASONS(X)
#undef X
    };
    return NAME_OF(names, why);
}

void death_describe(int status, char *out, size_t cap)
{
    const char *name = sigabbrev_np(WTERMSIG(status));
    if (WIFSIGNALED(status))
        snprintf(out, cap, "signal %d (%s)%s", WTERMSIG(status), name ? name : "?",
                 WCOREDUMP(status) ? ", core dumped" : "");
    else
        snprintf(out, cap, "exit %d", WEXITSTATUS(status));
}

const char *recycle_name(enum recycle why)
{
    static const char *const names[] = {
#define X(name) #name,
        RECYCLE_REASONS(X)
#undef X
    };
    return NAME_OF(names, why);
}

static size_t size_of(unsigned slots)
{
    return sizeof(struct scoreboard) + slots * sizeof(struct slot);
}

uint64_t scoreboard_routes;

uint64_t scoreboard_mix(uint64_t hash, const char *text)
{
    hash ^= 0xcbf29ce484222325; /* FNV-1a */
    for (const char *p = text; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    return (hash ^ '\n') * 0x100000001b3;
}

static uint64_t layout(void)
{
    uint64_t h = scoreboard_routes;
    char sizes[64];
    snprintf(sizes, sizeof sizes, "%d %zu %zu", VERSION, sizeof(struct scoreboard), sizeof(struct slot));
    h = scoreboard_mix(h, sizes);
#define COUNTER(name, help) h = scoreboard_mix(h, #name);
#define GAUGE(name, help)   h = scoreboard_mix(h, #name);
#include "common/stats.def"
#undef COUNTER
#undef GAUGE
#define X(name) h = scoreboard_mix(h, #name);
    WORKER_STATES(X)
    DEATH_REASONS(X)
    RECYCLE_REASONS(X)
    CAGE_FORMATS(X)
    CAGE_OUTCOMES(X)
#undef X
    return h;
}

bool scoreboard_adopt(int fd, unsigned *slots, struct scoreboard **out)
{
    struct stat st;
    assert(!mapped);
    if (fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(struct scoreboard))
        return false;
    struct scoreboard *sb = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (sb == MAP_FAILED)
        return false;
    size_t n = ((size_t)st.st_size - sizeof *sb) / sizeof(struct slot);
    if (sb->magic == MAGIC && sb->version == VERSION && sb->layout == layout() && sb->capacity == n && n >= *slots &&
        n <= SCORE_SLOTS_MAX && size_of((unsigned)n) == (size_t)st.st_size) {
        *out = sb;
        *slots = mapped = (unsigned)n;
        return true;
    }
    munmap(sb, (size_t)st.st_size);
    return false;
}

int scoreboard_create(struct scoreboard **out, int *fd_out, unsigned slots, struct err *e)
{
    assert(slots > 0 && slots <= SCORE_SLOTS_MAX && !mapped);
    size_t size = size_of(slots);
    int fd = memfd_create("ragd-scoreboard", MFD_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "scoreboard: memfd_create");
    if (ftruncate(fd, (off_t)size) != 0) {
        err_errno(e, "scoreboard: ftruncate to %zu bytes", size);
        close(fd);
        return -1;
    }
    struct scoreboard *sb = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (sb == MAP_FAILED) {
        err_errno(e, "scoreboard: mmap of %zu bytes", size);
        close(fd);
        return -1;
    }
    sb->magic = MAGIC;
    sb->version = VERSION;
    sb->layout = layout();
    sb->capacity = slots;
    atomic_store(&sb->slots, slots);
    sb->start_ns = clock_ns();
    sb->start_wall_us = clock_wall_us();
    mapped = slots;
    *out = sb;
    *fd_out = fd;
    return 0;
}

void scoreboard_unmap(struct scoreboard *sb)
{
    if (!sb)
        return;
    munmap(sb, size_of(mapped));
    mapped = 0;
    self = NULL;
    slot_self = &private_slot;
}

unsigned scoreboard_slots(const struct scoreboard *sb)
{
    unsigned n = atomic_load(&sb->slots);
    return n < mapped ? n : mapped;
}

void scoreboard_attach(struct scoreboard *sb, unsigned slot)
{
    assert(slot < mapped);
    self = sb;
    slot_self = &sb->slot[slot];
    /* Levels belong to the process, counts to the slot: a replacement starts at zero connections. */
#define COUNTER(name, help)
#define GAUGE(name, help) slot_self->stat[STAT_##name] = 0;
#include "common/stats.def"
#undef COUNTER
#undef GAUGE
    atomic_store(&slot_self->pid, getpid());
    atomic_store(&slot_self->connections, 0);
    slot_self->window = (struct window){0};
    for (int i = 0; i < SCORE_FLIGHTS; i++)
        atomic_store(&slot_self->flight[i].start_ns, 0);
}

void scoreboard_lock(void)
{
    if (mprotect(self, size_of(mapped), PROT_READ) != 0 ||
        mprotect(slot_self, sizeof *slot_self, PROT_READ | PROT_WRITE) != 0)
        (void)mprotect(self, size_of(mapped), PROT_READ | PROT_WRITE);
}

struct scoreboard *scoreboard_self(void)
{
    return self;
}

uint64_t scoreboard_total(enum stat_id s)
{
    uint64_t sum = 0;
    if (!self)
        return slot_self->stat[s];
    for (unsigned i = 0, n = scoreboard_slots(self); i < n; i++)
        sum += self->slot[i].stat[s];
    return sum;
}

void score_request(unsigned route, int status, int64_t latency_ns)
{
    static const int64_t bounds[] = LATENCY_BOUNDS_US;
    struct route_score *r = &slot_self->route[route < SCORE_ROUTES ? route : 0];
    int64_t us = latency_ns / 1000;
    unsigned b = 0;
    while (b < LATENCY_BUCKETS - 1 && us > bounds[b])
        b++;
    r->latency[b]++;
    r->latency_sum_us += (uint64_t)us;
    unsigned class = (unsigned)status / 100 - 1;
    r->by_class[class < SCORE_CLASSES ? class : SCORE_CLASSES - 1]++;
}

void score_sample(int64_t now)
{
    static struct sample {
        int64_t at_ns;
        uint64_t latency[LATENCY_BUCKETS];
    } ring[WINDOW_S + 1];
    static unsigned taken;
    struct sample *s = &ring[taken % (WINDOW_S + 1)];
    *s = (struct sample){.at_ns = now};
    for (int i = 0; i < SCORE_ROUTES; i++)
        for (int k = 0; k < LATENCY_BUCKETS; k++)
            s->latency[k] += slot_self->route[i].latency[k];
    taken++;
    const struct sample *oldest = taken > WINDOW_S ? &ring[taken % (WINDOW_S + 1)] : &ring[0];
    for (int k = 0; k < LATENCY_BUCKETS; k++)
        slot_self->window.latency[k] = (uint32_t)(s->latency[k] - oldest->latency[k]);
    slot_self->window.span_ns = now - oldest->at_ns;
}

int flight_begin(unsigned route, struct str method, struct str path, struct str request_id, int64_t start_ns)
{
    static unsigned next;
    for (unsigned k = 0; k < SCORE_FLIGHTS; k++) {
        unsigned i = (next + k) % SCORE_FLIGHTS;
        struct flight *f = &slot_self->flight[i];
        if (atomic_load_explicit(&f->start_ns, memory_order_relaxed))
            continue;
        f->route = (uint16_t)route;
        str_copyz(f->method, sizeof f->method, method);
        str_copyz(f->path, sizeof f->path, path);
        str_copyz(f->request_id, sizeof f->request_id, request_id);
        f->asked[0] = 0;
        atomic_store_explicit(&f->start_ns, start_ns, memory_order_release);
        next = i + 1;
        return (int)i;
    }
    return -1;
}

void flight_end(int handle)
{
    if (handle >= 0)
        atomic_store_explicit(&slot_self->flight[handle].start_ns, 0, memory_order_release);
}

struct flight *flight_at(int handle)
{
    return handle < 0 ? NULL : &slot_self->flight[handle];
}

void flight_asks(struct flight *f, const char *what)
{
    if (f)
        str_copyz(f->asked, sizeof f->asked, str_of(what));
}
