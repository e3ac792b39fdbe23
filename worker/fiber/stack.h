/* Memory of one fiber's stack: mapped, with a guard page below. Internal to worker/fiber. */
#pragma once
#include <stddef.h>

struct stack {
    char *map; /* starts with the guard page */
    size_t map_size;
    char *bottom; /* lowest usable byte */
    size_t size;
    unsigned valgrind_id;
};

int stack_map(struct stack *s); /* 0, or -1 with errno */
void stack_unmap(struct stack *s);
