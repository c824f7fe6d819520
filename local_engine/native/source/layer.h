/* The parts of a layer, as they are called from Python and from decoder.c. */
#ifndef FRUGAL_LAYER_H
#define FRUGAL_LAYER_H

#include "product.h"

struct norm {
    const void *x, *delta, *weight; /* delta may be NULL */
    void *sum, *out;                /* sum is written where there is a delta */
    long rows, width;
    float eps;
    int is_bf16, weight_is_bf16;
};

/* Heads of one token: queries, keys, values. Keys and values go to the token's slot. */
struct turn {
    const void *qkv, *cos, *sin, *norm; /* norm may be NULL: weights of query and key heads */
    void *q, *keys, *values;
    const int64_t *slots;
    long rows, heads, kv_heads, size, turned, stride;
    float eps;
    int is_bf16, norm_is_bf16;
};

struct gate {
    const void *both;
    void *out;
    long rows, width;
    int is_bf16, is_gelu;
};

/* One step of one layer. A sequence's pages begin at `begins` in `pages`; `ends` are lengths. */
struct attention {
    const void *q, *keys, *values;
    void *out;
    const int32_t *pages;
    const int64_t *begins, *ends;
    long sequences, heads, kv_heads, size, page_size, window;
    float scale, cap; /* without a window or a cap they are 0 */
    int is_bf16, threads;
};

void frugal_norm(const struct norm *a);
void frugal_turn(const struct turn *a);
void frugal_gate(const struct gate *a);
int frugal_attend(const struct attention *a);
int frugal_bf16(const struct weight *w, const struct rows *io);
int frugal_int8(const struct weight *w, const struct rows *io);
int frugal_int4(const struct weight *w, const struct rows *io);

#endif
