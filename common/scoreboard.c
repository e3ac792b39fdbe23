#include "common/scoreboard.h"
#include "common/clock.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAGIC = 0x52414744, VERSION = 1 };

static struct slot private_slot;
struct slot *slot_self = &private_slot;
static struct scoreboard *self;

static const char *const state_names[] = {
#define X(name) #name,
    WORKER_STATES(X)
#undef X
};

const char *worker_state_name(enum worker_state state)
{
    return state_names[state];
}

const char *role_name(enum role role)
{
    static const char *const names[ROLE_COUNT] = {"master", "http", "ingest"};
    return names[role];
}

static size_t size_of(unsigned slots)
{
    return sizeof(struct scoreboard) + slots * sizeof(struct slot);
}

int scoreboard_create(struct scoreboard **out, int *fd_out, unsigned slots, struct err *e)
{
    assert(slots > 0 && slots <= SCORE_SLOTS_MAX);
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
    sb->capacity = slots;
    atomic_store(&sb->slots, slots);
    sb->start_ns = clock_ns();
    sb->start_wall_us = clock_wall_us();
    for (unsigned i = 0; i < slots; i++)
        sb->slot[i].index = i;
    *out = sb;
    *fd_out = fd;
    return 0;
}

void scoreboard_unmap(struct scoreboard *sb)
{
    if (sb)
        munmap(sb, size_of(sb->capacity));
}

void scoreboard_attach(struct scoreboard *sb, unsigned slot)
{
    assert(slot < sb->capacity);
    self = sb;
    slot_self = &sb->slot[slot];
    /* Levels belong to the process, counts to the slot: a replacement starts at zero connections. */
#define COUNTER(name, help)
#define GAUGE(name, help) slot_self->stat[STAT_##name] = 0;
#include "common/stats.def"
#undef COUNTER
#undef GAUGE
    atomic_store(&slot_self->connections, 0);
    for (int i = 0; i < SCORE_FLIGHTS; i++)
        atomic_store(&slot_self->flight[i].start_ns, 0);
}

struct scoreboard *scoreboard_self(void)
{
    return self;
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
