/* Documents in containers: the input is the parts, each behind a line "=NAME". They are put into a ZIP archive as they are,
 * since a fuzzer that must guess checksums and compressed data sees nothing of what stands behind them. */
#include "common/buf.h"
#include "tests/fuzz/blocks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t crc_of(struct str s)
{
    uint32_t c = ~0U;
    for (size_t i = 0; i < s.n; i++) {
        c ^= (unsigned char)s.p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320U : 0);
    }
    return ~c;
}

static void put(struct buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        buf_ch(b, i < 8 ? (char)(v >> 8 * i) : 0);
}

/* What the local header and the directory have in common. */
static void put_entry(struct buf *b, struct str name, struct str text)
{
    put(b, 20, 2);
    put(b, 0, 8); /* flags, stored, time, date */
    put(b, crc_of(text), 4);
    put(b, text.n, 4);
    put(b, text.n, 4);
    put(b, name.n, 2);
    put(b, 0, 2);
}

static void add(struct buf *zip, struct buf *directory, struct str name, struct str text)
{
    size_t at = zip->n;
    buf_lit(zip, "PK\3\4");
    put_entry(zip, name, text);
    buf_str(zip, name);
    buf_str(zip, text);
    buf_lit(directory, "PK\1\2");
    put(directory, 20, 2);
    put_entry(directory, name, text);
    put(directory, 0, 10);
    put(directory, at, 4);
    buf_str(directory, name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = {(const char *)data, size};
    struct buf zip = {0}, directory = {0};
    int n = 0;
    while (rest.n && n < 100) {
        struct str name = str_cut(&rest, '\n');
        const char *end = rest.n ? memmem(rest.p, rest.n, "\n=", 2) : NULL;
        struct str text = str_sub(rest, 0, end ? (size_t)(end - rest.p) : rest.n);
        rest = str_sub(rest, text.n + 1, SIZE_MAX);
        add(&zip, &directory, str_sub(name, 1, 200), text);
        n++;
    }
    size_t at = zip.n;
    buf_str(&zip, buf_view(&directory));
    buf_lit(&zip, "PK\5\6");
    put(&zip, 0, 4);
    put(&zip, (uint64_t)n, 2);
    put(&zip, (uint64_t)n, 2);
    put(&zip, directory.n, 4);
    put(&zip, at, 4);
    put(&zip, 0, 2);
    extract_checked(buf_view(&zip), "", "");
    buf_fini(&zip);
    buf_fini(&directory);
    return 0;
}
