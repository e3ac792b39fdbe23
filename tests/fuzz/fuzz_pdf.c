/* What pdftotext prints, read by the cage: bytes that a stranger's PDF document may choose. */
#include "worker/core/extract_private.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source s = {.code = NULL};
    char *copy = malloc(size ? size : 1);
    assert(copy);
    if (size)
        memcpy(copy, data, size);
    int rc = extract_pdf_text(&s, (struct str){copy, size});
    assert((rc == 0) == (s.code == NULL) && s.pages >= 0);
    for (size_t i = 0; rc == 0 && i < s.builder.n; i++)
        assert(s.builder.block[i].page >= 1 && s.builder.block[i].page <= s.pages);
    assert(rc != 0 || (s.builder.n > 0 && str_is_utf8(buf_view(&s.builder.text))));
    builder_fini(&s.builder);
    free(copy);
    return 0;
}
