/* What all products of few rows share: the weight, the rows made ready, how outputs are stored. */
#ifndef FRUGAL_PRODUCT_H
#define FRUGAL_PRODUCT_H

#include <stdlib.h>
#include "rows.h"

/* A weight `[outputs, columns]`; each output has `lines` lines of 64 columns, padded with zeros. */
struct weight {
    long columns, outputs, lines, group;
    const void *values;
    const void *scale; /* int8: a float an output. int4: two bf16 a group, scale and level 8. */
    const float *bias; /* may be NULL */
};

/* Where products read and write: row after row, in bf16 or floats. */
struct rows {
    const void *x;
    void *y;
    long count;
    int x_is_bf16, y_is_bf16, threads;
};

/* Up to 8 rows of 16-bit integers, and for each row the worth of one step. */
struct rounded {
    int16_t *x;
    float steps[MOST_ROWS];
};

INLINE const void *row_at(const void *x, int is_bf16, long place) {
    return (const char *)x + place * (is_bf16 ? 2 : 4);
}

INLINE void store(void *y, int is_bf16, long place, float value) {
    if (is_bf16)
        ((uint16_t *)y)[place] = float_to_bf16(value);
    else
        ((float *)y)[place] = value;
}

/* Return how many rows BY_ROWS computes for so many. */
INLINE long filled(long rows) { return rows <= 2 ? rows : rows <= 4 ? 4 : MOST_ROWS; }

/* Round `count` rows from `first` on, and fill up with zeros to as many as are computed. */
INLINE void round_rows(
    const struct rows *io, long first, long count, long columns, long width, struct rounded *out
) {
    for (long r = 0; r < count; r++) {
        const void *x = row_at(io->x, io->x_is_bf16, (first + r) * columns);
        out->steps[r] = round_row(x, io->x_is_bf16, columns, width, out->x + r * width);
    }
    memset(out->x + count * width, 0, (filled(count) - count) * width * sizeof *out->x);
}

/* Outputs from `begin` to before `end`, of `count` rows from `first` on. */
struct span {
    long begin, end, first, count;
};

/* Run `slice(span)` on as many threads as asked, each for its share of the outputs. The body of
 * a parallel region becomes a function of its own, which knows no constants: it only calls. */
#define SHARED(io, outputs, first, count, slice) \
    _Pragma("omp parallel for num_threads(io->threads) schedule(static, 1) if (io->threads > 1)") \
    for (int part = 0; part < io->threads; part++) { \
        struct span span = { \
            outputs * part / io->threads, outputs * (part + 1) / io->threads, first, count \
        }; \
        slice; \
    }

/* Run `each(n)` with the number of rows as a constant; rows that fill up are zeros. */
#define BY_ROWS(rows, each) \
    if (rows == 1) each(1); \
    else if (rows == 2) each(2); \
    else if (rows <= 4) each(4); \
    else each(8);

#endif
