/* What a cage returns, read by the worker: a stranger's bytes. It is refused, or a text whose blocks keep their promises. */
#include "tests/fuzz/blocks.h"
#include "worker/core/cage_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct err e = {0};
    struct extracted x;
    const char *code = NULL;
    int page = 0;
    char *copy = malloc(size ? size : 1);
    assert(copy);
    if (size)
        memcpy(copy, data, size);
    if (wire_read(&a, (struct str){copy, size}, &x, &code, &page, &e) == 0) {
        check_blocks(&x);
        assert(x.mime[0] && x.pages >= 0);
    } else {
        assert(e.msg[0] && str_is_utf8(str_of(e.msg)) && page >= 0 && (e.code == ERR_VALIDATION) == (code != NULL));
    }
    free(copy);
    arena_fini(&a);
    return 0;
}
