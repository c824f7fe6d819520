/* Rows of activations, as floats or bf16: read, rounded to 16 bits, and written. */
#ifndef FRUGAL_ROWS_H
#define FRUGAL_ROWS_H

#include <float.h>
#include <math.h>
#include "vectors.h"

/* So many rows share one reading of a weight. */
#define MOST_ROWS 8
/* The largest of a row becomes this: far enough from the end of 16 bits. */
#define LARGEST 32512

INLINE void read_row(const void *x, int is_bf16, long count, float *out) {
    if (is_bf16)
        for (long k = 0; k < count; k++) out[k] = bf16_to_float(((const uint16_t *)x)[k]);
    else
        memcpy(out, x, count * sizeof *out);
}

INLINE void write_row(void *y, int is_bf16, long count, const float *x) {
    if (is_bf16)
        for (long k = 0; k < count; k++) ((uint16_t *)y)[k] = float_to_bf16(x[k]);
    else
        memcpy(y, x, count * sizeof *x);
}

INLINE float value_at(const void *x, int is_bf16, long k) {
    return is_bf16 ? bf16_to_float(((const uint16_t *)x)[k]) : ((const float *)x)[k];
}

/* Write a row as integers of 16 bits, zeros up to `width`; return what one step of them is worth.
 * A row that holds what is no number gives NaN, so that every product with it is none, too. */
INLINE float round_numbers(const void *x, const int is_bf16, long count, int16_t *out) {
    float largest = 0;
    int is_finite = 1;
    for (long k = 0; k < count; k++) {
        float size = fabsf(value_at(x, is_bf16, k));
        largest = size > largest ? size : largest;
        is_finite &= size <= FLT_MAX;
    }
    float step = (largest > 1e-30f ? largest : 1e-30f) / LARGEST, times = 1 / step;
    if (!is_finite) return NAN;
    for (long k = 0; k < count; k++) {
        /* Added to 1.5 * 2^23, a number leaves its nearest integer in the lowest bits. */
        float shifted = value_at(x, is_bf16, k) * times + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &shifted, 4);
        out[k] = (int16_t)(bits - 0x4b400000);
    }
    return step;
}

INLINE float round_row(const void *x, int is_bf16, long count, long width, int16_t *out) {
    memset(out, 0, width * sizeof *out);
    return is_bf16 ? round_numbers(x, 1, count, out) : round_numbers(x, 0, count, out);
}

#endif
