/* Files of /proc and /sys: small, read whole, and absent where a kernel or container has none. */
#pragma once
#include "common/str.h"

/* The text, cut at `cap` and without its last newlines; empty when the file cannot be read. */
struct str procfile_read(const char *path, char *text, size_t cap);
