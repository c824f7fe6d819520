/* Products of bf16 rows with bf16 weights, summed in floats, always in the same order. */
#include "product.h"

#define COLUMNS 32

/* Return sums + the products of neighbours, even and odd columns of a line each in their lane. */
INLINE floats add_bf16_pairs(floats sums, ints w, ints x) {
#if defined(__AVX512BF16__)
    return (floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)x);
#else
    const int32_t high = (int32_t)0xffff0000;
    sums += (floats)(w << 16) * (floats)(x << 16);
    return sums + (floats)(w & high) * (floats)(x & high);
#endif
}

INLINE void outputs_of(
    const int rows, const struct weight *w, const struct rows *io, const uint16_t *x,
    struct span at
) {
    for (long n = at.begin; n < at.end; n++) {
        const char *values = (const char *)w->values + n * w->lines * LINE;
        floats sums[MOST_ROWS] = {0}, more[MOST_ROWS] = {0};
        long line = 0;
        for (; line + 1 < w->lines; line += 2) {
            __builtin_prefetch(values + line * LINE + AHEAD);
            __builtin_prefetch(values + line * LINE + AHEAD + LINE);
            ints first = LOAD(ints, values + line * LINE);
            ints second = LOAD(ints, values + line * LINE + LINE);
            UNROLL for (int r = 0; r < rows; r++) {
                const uint16_t *row = x + (r * w->lines + line) * COLUMNS;
                sums[r] = add_bf16_pairs(sums[r], first, LOAD(ints, row));
                more[r] = add_bf16_pairs(more[r], second, LOAD(ints, row + COLUMNS));
            }
        }
        if (line < w->lines) {
            ints last = LOAD(ints, values + line * LINE);
            UNROLL for (int r = 0; r < rows; r++) {
                const uint16_t *row = x + (r * w->lines + line) * COLUMNS;
                sums[r] = add_bf16_pairs(sums[r], last, LOAD(ints, row));
            }
        }
        float found[MOST_ROWS];
        UNROLL for (int r = 0; r < rows; r++) found[r] = sum_of(sums[r] + more[r]);
        for (int r = 0; r < at.count; r++) {
            float y = found[r] + (w->bias ? w->bias[n] : 0);
            store(io->y, io->y_is_bf16, (at.first + r) * w->outputs + n, y);
        }
    }
}

static void slice(
    const struct weight *w, const struct rows *io, const uint16_t *x, struct span at
) {
#define EACH(n) outputs_of(n, w, io, x, at)
    BY_ROWS(at.count, EACH)
}

/* Multiply all rows, which are bf16, with the weight; return 0, or 1 where memory is out. */
int frugal_bf16(const struct weight *w, const struct rows *io) {
    long width = w->lines * COLUMNS;
    uint16_t *x = aligned_alloc(LINE, MOST_ROWS * width * sizeof *x);
    if (!x) return 1;
    for (long first = 0; first < io->count; first += MOST_ROWS) {
        long rows = io->count - first < MOST_ROWS ? io->count - first : MOST_ROWS;
        memcpy(x, (const uint16_t *)io->x + first * width, rows * width * sizeof *x);
        memset(x + rows * width, 0, (filled(rows) - rows) * width * sizeof *x);
        SHARED(io, w->outputs, first, rows, slice(w, io, x, span))
    }
    free(x);
    return 0;
}
