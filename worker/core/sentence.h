/* Sentences, by their punctuation: for chunks, which end where one ends, and for answers, which quote them. */
#pragma once
#include "common/str.h"

/* The next sentence (or line) from the start of `s`: its length, the white space behind it not included. At most `max`
 * bytes, cut at white space if there is any in the second half. */
size_t sentence_next(struct str s, bool lines, size_t max);
