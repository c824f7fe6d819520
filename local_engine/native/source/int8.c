/* Products of rows with int8 weights: y = (x wᵀ) scale, summed in integers. */
#include "product.h"

/* So many lines may be summed in lanes of 32 bits: each adds 2 products of 16 by 8 bits. */
#define MOST_LINES 256

/* Sum the products of one output with each row; rows and weight are `lines` lines long. */
INLINE void sums_of(const int rows, const int8_t *w, const int16_t *x, long lines, float *sums) {
    floats total[MOST_ROWS] = {0};
    for (long begin = 0; begin < lines; begin += MOST_LINES) {
        ints even[MOST_ROWS] = {0}, odd[MOST_ROWS] = {0};
        long end = begin + MOST_LINES < lines ? begin + MOST_LINES : lines;
        for (long n = begin; n < end; n++) {
            __builtin_prefetch(w + n * LINE + AHEAD);
            shorts first = wide_bytes(w + n * LINE);
            shorts second = wide_bytes(w + n * LINE + 32);
            UNROLL for (int r = 0; r < rows; r++) {
                const int16_t *at = x + (r * lines + n) * LINE;
                even[r] = add_pairs(even[r], first, LOAD(shorts, at));
                odd[r] = add_pairs(odd[r], second, LOAD(shorts, at + 32));
            }
        }
        UNROLL for (int r = 0; r < rows; r++) total[r] += WIDE(floats, even[r]) + WIDE(floats, odd[r]);
    }
    UNROLL for (int r = 0; r < rows; r++) sums[r] = sum_of(total[r]);
}

INLINE void outputs_of(
    const int rows, const struct weight *w, const struct rows *io, const struct rounded *in,
    struct span at
) {
    const float *scale = w->scale;
    for (long n = at.begin; n < at.end; n++) {
        float sums[MOST_ROWS];
        sums_of(rows, (const int8_t *)w->values + n * w->lines * LINE, in->x, w->lines, sums);
        for (int r = 0; r < at.count; r++) {
            float y = sums[r] * (scale[n] * in->steps[r]) + (w->bias ? w->bias[n] : 0);
            store(io->y, io->y_is_bf16, (at.first + r) * w->outputs + n, y);
        }
    }
}

static void slice(
    const struct weight *w, const struct rows *io, const struct rounded *in, struct span at
) {
#define EACH(n) outputs_of(n, w, io, in, at)
    BY_ROWS(at.count, EACH)
}

/* Multiply all rows with the weight; return 0, or 1 where memory is out. */
int frugal_int8(const struct weight *w, const struct rows *io) {
    long width = w->lines * LINE;
    struct rounded in;
    if (!(in.x = aligned_alloc(LINE, MOST_ROWS * width * sizeof *in.x))) return 1;
    for (long first = 0; first < io->count; first += MOST_ROWS) {
        long rows = io->count - first < MOST_ROWS ? io->count - first : MOST_ROWS;
        round_rows(io, first, rows, w->columns, width, &in);
        SHARED(io, w->outputs, first, rows, slice(w, io, &in, span))
    }
    free(in.x);
    return 0;
}
