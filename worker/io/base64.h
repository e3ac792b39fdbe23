/* Base64 (RFC 4648 section 4): vectors come in it, signatures leave in it. */
#pragma once
#include "common/arena.h"

/* The length of what `s` decodes to; -1 if it is no base64. Padding may be absent. */
ptrdiff_t base64_decoded_len(struct str s);
/* Decodes what base64_decoded_len() accepted into `out`. */
void base64_decode(struct str s, uint8_t *out);
struct str base64_encode(struct arena *a, const void *p, size_t n);
