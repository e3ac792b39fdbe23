#include "worker/fiber/stack.h"
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(from, to) 0
#define VALGRIND_STACK_DEREGISTER(id)     (void)(id)
#endif

#if defined(__SANITIZE_ADDRESS__)
#define STACK_SIZE (1024 * 1024) /* ASan's frames carry red zones */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STACK_SIZE (1024 * 1024)
#endif
#endif
#ifndef STACK_SIZE
#define STACK_SIZE (256 * 1024)
#endif

int stack_map(struct stack *s)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t total = STACK_SIZE + page;
    char *map =
        mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return -1;
    if (mprotect(map, page, PROT_NONE) < 0) {
        int saved = errno;
        munmap(map, total);
        errno = saved;
        return -1;
    }
    *s = (struct stack){.map = map, .map_size = total, .bottom = map + page, .size = STACK_SIZE};
    s->valgrind_id = (unsigned)VALGRIND_STACK_REGISTER(s->bottom, s->bottom + s->size);
    return 0;
}

void stack_unmap(struct stack *s)
{
    VALGRIND_STACK_DEREGISTER(s->valgrind_id);
    munmap(s->map, s->map_size);
}
