/* Formats that are found by their content, or by a name that the first byte chooses; the rest is the file. */
#include "tests/fuzz/blocks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a.csv", "a.tsv", "a.json", "a.xml", "a.eml", "a"};
    if (size > 0)
        extract_checked((struct str){(const char *)data + 1, size - 1}, "",
                        names[data[0] % (sizeof names / sizeof *names)]);
    return 0;
}
