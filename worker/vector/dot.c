#include "worker/vector/dot.h"
#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

/* |v| and the sign of v moved to a: maddubs wants one operand without signs. 2 × 127 × 127 fits 16 bits. */
__attribute__((target("avx2"))) static void dot_avx2(const int8_t *a, const int8_t *v, size_t stride, size_t n,
                                                     int32_t *out)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t i = 0; i < n; i++, v += stride) {
        __m256i sum = _mm256_setzero_si256();
        for (size_t x = 0; x < stride; x += 32) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(a + x));
            __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)(v + x));
            __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
        out[i] = _mm_cvtsi128_si32(s);
    }
}

static void dot_sse2(const int8_t *a, const int8_t *v, size_t stride, size_t n, int32_t *out)
{
    for (size_t i = 0; i < n; i++, v += stride) {
        __m128i s = _mm_setzero_si128();
        for (size_t x = 0; x < stride; x += 16) {
            __m128i q = _mm_loadu_si128((const __m128i *)(const void *)(a + x));
            __m128i w = _mm_loadu_si128((const __m128i *)(const void *)(v + x));
            /* a byte twice, shifted right by 8: its value in 16 bits */
            __m128i q0 = _mm_srai_epi16(_mm_unpacklo_epi8(q, q), 8), w0 = _mm_srai_epi16(_mm_unpacklo_epi8(w, w), 8);
            __m128i q1 = _mm_srai_epi16(_mm_unpackhi_epi8(q, q), 8), w1 = _mm_srai_epi16(_mm_unpackhi_epi8(w, w), 8);
            s = _mm_add_epi32(s, _mm_add_epi32(_mm_madd_epi16(q0, w0), _mm_madd_epi16(q1, w1)));
        }
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
        out[i] = _mm_cvtsi128_si32(s);
    }
}
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static void dot_neon(const int8_t *a, const int8_t *v, size_t stride, size_t n, int32_t *out)
{
    for (size_t i = 0; i < n; i++, v += stride) {
        int32x4_t sum = vdupq_n_s32(0);
        for (size_t x = 0; x < stride; x += 16) {
            int8x16_t q = vld1q_s8(a + x), w = vld1q_s8(v + x);
            int16x8_t pairs = vmull_s8(vget_low_s8(q), vget_low_s8(w)); /* 2 × 127 × 127 fits 16 bits */
            sum = vpadalq_s16(sum, vmlal_s8(pairs, vget_high_s8(q), vget_high_s8(w)));
        }
        out[i] = vaddvq_s32(sum);
    }
}
#endif

static void dot_plain(const int8_t *a, const int8_t *v, size_t stride, size_t n, int32_t *out)
{
    for (size_t i = 0; i < n; i++, v += stride) {
        int32_t sum = 0;
        for (size_t x = 0; x < stride; x++)
            sum += a[x] * v[x];
        out[i] = sum;
    }
}

const struct dot_kernel dot_kernels[] = {
#if defined(__x86_64__)
    {"avx2", has_avx2, dot_avx2}, {"sse2", NULL, dot_sse2},
#endif
#if defined(__aarch64__)
    {"neon", NULL, dot_neon},
#endif
    {"plain", NULL, dot_plain},   {NULL, NULL, NULL},
};

dot_fn *dot_best(void)
{
    const struct dot_kernel *k = dot_kernels;
    while (k->usable && !k->usable())
        k++;
    return k->fn;
}

bool dot_encode(const float *v, size_t dim, size_t stride, int8_t *code, float *scale)
{
    float most = 0;
    for (size_t i = 0; i < dim; i++) {
        if (!isfinite(v[i]))
            return false;
        most = fabsf(v[i]) > most ? fabsf(v[i]) : most;
    }
    *scale = most / 127;
    float factor = most >= 1e-30f ? 127 / most : 0;
    for (size_t i = 0; i < dim; i++)
        code[i] = (int8_t)lrintf(v[i] * factor);
    memset(code + dim, 0, stride - dim);
    return true;
}

/* Four sums in this order, whatever the compiler makes of it: doubles, so that no order of hits hangs on rounding. */
float dot_exact(const float *a, const float *b, size_t dim)
{
    double s[4] = {0};
    size_t i = 0;
    for (; i + 4 <= dim; i += 4)
        for (size_t k = 0; k < 4; k++)
            s[k] += (double)a[i + k] * (double)b[i + k];
    for (; i < dim; i++)
        s[0] += (double)a[i] * (double)b[i];
    double sum = s[0] + s[1] + (s[2] + s[3]);
    return isfinite(sum) ? (float)sum : 0;
}
