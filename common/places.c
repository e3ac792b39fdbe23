#include "common/places.h"
#include "common/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To be raised with every change of what is in the block, or of what it means. */
static const uint64_t LAYOUT = UINT64_C(0x5241474450000002);

enum { FRESH_MS = 100 }; /* who lived so long ago is not asked again: a scan meets the same owners many times */

static struct places *self;
static int self_fd;
static uint32_t own; /* number */

static int map(int fd, struct places **out)
{
    struct places *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -1;
    *out = p;
    return 0;
}

int places_create(struct places **out, int *fd_out, struct err *e)
{
    int fd = memfd_create("ragd-places", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_errno(e, "places: memfd_create");
    /* Its descriptor is open in workers: none shall be able to pull the memory away under the others. */
    if (ftruncate(fd, sizeof **out) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        map(fd, out) != 0) {
        err_errno(e, "places: memfd of %zu bytes", sizeof **out);
        close(fd);
        return -1;
    }
    (*out)->layout = LAYOUT;
    *fd_out = fd;
    return 0;
}

bool places_adopt(int fd, struct places **out)
{
    struct stat st;
    struct places *p;
    if (fstat(fd, &st) != 0 || st.st_size != (off_t)sizeof *p || map(fd, &p) != 0)
        return false;
    if (p->layout != LAYOUT) {
        places_unmap(p);
        return false;
    }
    *out = p;
    return true;
}

void places_unmap(struct places *p)
{
    if (p)
        munmap(p, sizeof *p);
}

static int lock(int fd, int command, struct flock *l, uint32_t number)
{
    *l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = number, .l_len = 1};
    return fcntl(fd, command, l);
}

/* A lock of the process, not of the open file description, which it shares with its siblings. */
int places_join(struct places *p, int fd, struct err *e)
{
    struct flock l;
    uint32_t number = 0;
    while (lock(fd, F_SETLK, &l, number) != 0)
        if ((errno != EAGAIN && errno != EACCES) || ++number == PLACES_OWNERS)
            return err_errno(e, "places: no lock for process %d", (int)getpid());
    self = p;
    self_fd = fd;
    own = number;
    atomic_store(&places_owner_self()->since_ns, 0);
    atomic_fetch_add(&places_owner_self()->serial, 1);
    return 0;
}

struct places *places_self(void)
{
    return self;
}

struct places_owner *places_owner_self(void)
{
    return &self->owner[own];
}

uint64_t places_mark(void)
{
    return (uint64_t)(own + 1) << 32 | atomic_load(&places_owner_self()->serial);
}

bool places_lives(uint64_t mark)
{
    static int64_t seen_ns[PLACES_OWNERS];
    uint64_t number = (mark >> 32) - 1;
    struct flock l;
    if (mark == places_mark())
        return true; /* one's own lock is in nobody's way */
    if (number >= PLACES_OWNERS || atomic_load(&self->owner[number].serial) != (uint32_t)mark)
        return false;
    int64_t now = clock_ns();
    if (seen_ns[number] && now - seen_ns[number] < FRESH_MS * MS)
        return true;
    if (lock(self_fd, F_GETLK, &l, (uint32_t)number) == 0 && l.l_type == F_UNLCK)
        return false;
    seen_ns[number] = now;
    return true;
}
