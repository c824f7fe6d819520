/* Products of rows with 4-bit weights in groups: w = (q - 8) scale + middle.
 *
 * A line of 128 columns has 64 bytes, as 32 numbers of 16 bits: the n-th nibble of number j
 * belongs to column 32 n + j, so that masks and shifts alone unpack it. Within a group
 * products are summed in integers; what is the same for all its weights meets the sum of
 * its inputs.
 */
#include "product.h"

#define COLUMNS 128

struct prepared {
    struct rounded rows;
    float *sums; /* of a group's inputs: 8 floats a group, one for each row */
};

INLINE shorts nibbles(shorts line, const int n) {
    return n == 3 ? (shorts)((ushorts)line >> 12) : (line >> (4 * n)) & 15;
}

/* Sum the products of one output with each row. `pairs` hold two bf16 a group: scale, middle. */
INLINE void sums_of(
    const int rows, const int group, const uint8_t *q, const uint32_t *pairs, long lines,
    const struct prepared *in, float *found
) {
    const float *inputs = in->sums;
    floats total[MOST_ROWS] = {0};
    floats8 constant = {0};
    ints sums[MOST_ROWS] = {0};
    for (long line = 0; line < lines; line++) {
        __builtin_prefetch(q + line * LINE + AHEAD);
        shorts packed = LOAD(shorts, q + line * LINE);
        UNROLL for (int n = 0; n < 4; n++) {
            shorts one = nibbles(packed, n);
            UNROLL for (int r = 0; r < rows; r++) {
                const int16_t *x = in->rows.x + (r * lines + line) * COLUMNS + 32 * n;
                sums[r] = add_pairs(sums[r], one, LOAD(shorts, x));
            }
            if ((4 * line + n + 1) % (group / 32)) continue;
            ints pair = (ints){0} + (int32_t)*pairs++;
            floats scale = (floats)(pair << 16), middle = (floats)(pair & (int32_t)0xffff0000);
            floats least = middle - 8 * scale;
            UNROLL for (int r = 0; r < rows; r++) {
                total[r] += WIDE(floats, sums[r]) * scale;
                sums[r] = (ints){0};
            }
            constant += LOAD(floats8, inputs) * LOW_HALF(least);
            inputs += MOST_ROWS;
        }
    }
    UNROLL for (int r = 0; r < rows; r++) found[r] = sum_of(total[r]) + constant[r];
}

INLINE void outputs_of(
    const int rows, const int group, const struct weight *w, const struct rows *io,
    const struct prepared *in, struct span at
) {
    long groups = w->lines * COLUMNS / group;
    for (long n = at.begin; n < at.end; n++) {
        const uint8_t *q = (const uint8_t *)w->values + n * w->lines * LINE;
        float sums[MOST_ROWS];
        sums_of(rows, group, q, (const uint32_t *)w->scale + n * groups, w->lines, in, sums);
        for (int r = 0; r < at.count; r++) {
            float y = sums[r] * in->rows.steps[r] + (w->bias ? w->bias[n] : 0);
            store(io->y, io->y_is_bf16, (at.first + r) * w->outputs + n, y);
        }
    }
}

INLINE void slice_of(
    const int group, const struct weight *w, const struct rows *io, const struct prepared *in,
    struct span at
) {
#define EACH(n) outputs_of(n, group, w, io, in, at)
    BY_ROWS(at.count, EACH)
}

static void slice(
    const struct weight *w, const struct rows *io, const struct prepared *in, struct span at
) {
    switch (w->group) {
        case 32: slice_of(32, w, io, in, at); break;
        case 64: slice_of(64, w, io, in, at); break;
        case 128: slice_of(128, w, io, in, at); break;
        default: slice_of(256, w, io, in, at);
    }
}

/* Sum each group's inputs of one row: exact, up to 256 integers of 16 bits. */
INLINE void sum_groups(const int16_t *x, long groups, long group, float *sums) {
    for (long g = 0; g < groups; g++) {
        int32_t sum = 0;
        for (long k = 0; k < group; k++) sum += x[g * group + k];
        sums[g * MOST_ROWS] = (float)sum;
    }
}

/* Multiply all rows with the weight; return 0, or 1 where memory is out. */
int frugal_int4(const struct weight *w, const struct rows *io) {
    long width = w->lines * COLUMNS, groups = width / w->group;
    size_t of_rows = MOST_ROWS * width * sizeof(int16_t), of_sums = groups * MOST_ROWS * 4;
    char *memory = aligned_alloc(LINE, of_rows + (of_sums + LINE - 1) / LINE * LINE);
    if (!memory) return 1;
    struct prepared in = {{(int16_t *)memory, {0}}, (float *)(memory + of_rows)};
    for (long first = 0; first < io->count; first += MOST_ROWS) {
        long rows = io->count - first < MOST_ROWS ? io->count - first : MOST_ROWS;
        round_rows(io, first, rows, w->columns, width, &in.rows);
        for (long r = 0; r < MOST_ROWS; r++)
            sum_groups(in.rows.x + (r < rows ? r : 0) * width, groups, w->group, in.sums + r);
        SHARED(io, w->outputs, first, rows, slice(w, io, &in, span))
    }
    free(memory);
    return 0;
}
