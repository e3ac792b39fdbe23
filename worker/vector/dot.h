/* Distances: unit vectors as int8 codes for the scan, and as floats for the last word. The scan's sums are whole numbers,
 * so every implementation gives the same ones; the last word has one implementation. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out[i] = a · v[i], for n codes of `stride` bytes each, a multiple of 32. No byte is -128. */
typedef void dot_fn(const int8_t *a, const int8_t *v, size_t stride, size_t n, int32_t *out);

struct dot_kernel {
    const char *name;
    bool (*usable)(void); /* on this processor; NULL: always */
    dot_fn *fn;
};
extern const struct dot_kernel dot_kernels[]; /* best first, ends with a NULL name */
dot_fn *dot_best(void);

/* code = v / *scale, rounded; bytes from dim to stride are 0. False when an element is not finite. */
bool dot_encode(const float *v, size_t dim, size_t stride, int8_t *code, float *scale);
float dot_exact(const float *a, const float *b, size_t dim);
