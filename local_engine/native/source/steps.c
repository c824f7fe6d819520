/* What lies between the products of a layer: residual and norm, positions, gates. Widths are
 * multiples of 16. What is computed is rounded once, where it is stored. */
#include "layer.h"

INLINE float scale_of(const void *x, const int is_bf16, long width, float eps) {
    floats squares = {0};
    for (long k = 0; k < width; k += 16) {
        floats v = numbers(x, is_bf16, k);
        squares += v * v;
    }
    return 1 / sqrtf(sum_of(squares) / width + eps);
}

INLINE void norm_row(const struct norm *a, const int is_bf16, const int w_is_bf16, long row) {
    const void *x = row_at(a->x, is_bf16, row * a->width);
    void *out = (void *)row_at(a->out, is_bf16, row * a->width);
    if (a->delta) {
        const void *delta = row_at(a->delta, is_bf16, row * a->width);
        void *sum = (void *)row_at(a->sum, is_bf16, row * a->width);
        for (long k = 0; k < a->width; k += 16)
            put(sum, is_bf16, k, numbers(x, is_bf16, k) + numbers(delta, is_bf16, k));
        x = sum;
    }
    float scale = scale_of(x, is_bf16, a->width, a->eps);
    for (long k = 0; k < a->width; k += 16)
        put(out, is_bf16, k, numbers(x, is_bf16, k) * scale * numbers(a->weight, w_is_bf16, k));
}

/* Add what a half layer gave to each row, and normalize the sum by its root mean square. */
void frugal_norm(const struct norm *a) {
    for (long row = 0; row < a->rows; row++) {
        if (!a->is_bf16)
            norm_row(a, 0, 0, row);
        else if (a->weight_is_bf16)
            norm_row(a, 1, 1, row);
        else
            norm_row(a, 1, 0, row);
    }
}

/* Normalize and turn one head; pairs are (k, k + turned / 2), the sine has the sign of its place. */
INLINE void turn_head(
    const struct turn *a, const int is_bf16, const void *x, long row, long head, void *out
) {
    float wide[a->size];
    for (long k = 0; k < a->size; k++) wide[k] = value_at(x, is_bf16, k);
    if (a->norm) {
        float scale = scale_of(x, is_bf16, a->size, a->eps);
        const void *weight = row_at(a->norm, a->norm_is_bf16, head * a->size);
        for (long k = 0; k < a->size; k++)
            wide[k] *= scale * value_at(weight, a->norm_is_bf16, k);
    }
    const void *cos = row_at(a->cos, is_bf16, row * a->turned);
    const void *sin = row_at(a->sin, is_bf16, row * a->turned);
    long half = a->turned / 2;
    for (long k = 0; k < half; k++) {
        float first = wide[k], second = wide[k + half];
        wide[k] = first * value_at(cos, is_bf16, k) + second * value_at(sin, is_bf16, k);
        wide[k + half] = second * value_at(cos, is_bf16, k + half)
                       + first * value_at(sin, is_bf16, k + half);
    }
    for (long k = 0; k < a->size; k += 16) put(out, is_bf16, k, LOAD(floats, wide + k));
}

INLINE void turn_row(const struct turn *a, const int is_bf16, long row) {
    long all = a->heads + 2 * a->kv_heads, turned = a->heads + a->kv_heads;
    const char *x = row_at(a->qkv, is_bf16, row * a->stride);
    long item = is_bf16 ? 2 : 4, slot = a->slots[row] * a->kv_heads;
    for (long head = 0; head < turned; head++) {
        long place = head < a->heads ? row * a->heads + head : slot + head - a->heads;
        char *out = (char *)(head < a->heads ? a->q : a->keys) + place * a->size * item;
        turn_head(a, is_bf16, x + head * a->size * item, row, head, out);
    }
    char *values = (char *)a->values + slot * a->size * item;
    memcpy(values, x + turned * a->size * item, (all - turned) * a->size * item);
}

/* Turn queries and keys by their positions; write keys and values to their slots. */
void frugal_turn(const struct turn *a) {
    for (long row = 0; row < a->rows; row++) {
        if (a->is_bf16)
            turn_row(a, 1, row);
        else
            turn_row(a, 0, row);
    }
}

INLINE void gate_row(const struct gate *a, const int is_bf16, long row) {
    const void *gate = row_at(a->both, is_bf16, row * 2 * a->width);
    const void *up = row_at(a->both, is_bf16, (row * 2 + 1) * a->width);
    void *out = (void *)row_at(a->out, is_bf16, row * a->width);
    for (long k = 0; k < a->width; k += 16) {
        floats x = numbers(gate, is_bf16, k);
        /* gelu by its tanh, which is a sigmoid: 0.5 (1 + tanh(a)) = sigmoid(2 a) */
        floats inner = a->is_gelu ? 1.59576912f * (x + 0.044715f * x * x * x) : x;
        put(out, is_bf16, k, x / (1 + exp_of(-inner)) * numbers(up, is_bf16, k));
    }
}

/* Multiply the second half of each row with the activation of the first. */
void frugal_gate(const struct gate *a) {
    for (long row = 0; row < a->rows; row++) {
        if (a->is_bf16)
            gate_row(a, 1, row);
        else
            gate_row(a, 0, row);
    }
}
