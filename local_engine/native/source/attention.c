/* Attention of single tokens to keys and values in pages, where they lie. */
#include "layer.h"

/* One key head of one sequence, and the query heads that share it. */
struct task {
    const struct attention *a;
    const int32_t *pages;
    long kv_head, group, first, count;
    float *q, *scores, *sums; /* [group, size], [group, count up to whole vectors], [group, size] */
    long width;
};

INLINE const char *place_of(const struct task *t, const void *pool, long position, long item) {
    const struct attention *a = t->a;
    long slot = (long)t->pages[position / a->page_size] * a->page_size + position % a->page_size;
    return (const char *)pool + (slot * a->kv_heads + t->kv_head) * a->size * item;
}

INLINE void score(const struct task *t, const int is_bf16) {
    long vectors = t->a->size / 16;
    for (long n = 0; n < t->count; n++) {
        const char *key = place_of(t, t->a->keys, t->first + n, is_bf16 ? 2 : 4);
        for (long h = 0; h < t->group; h++) {
            floats sum = {0};
            for (long c = 0; c < vectors; c++)
                sum += numbers(key, is_bf16, 16 * c) * LOAD(floats, t->q + h * t->a->size + c * 16);
            t->scores[h * t->width + n] = sum_of(sum) * t->a->scale;
        }
    }
}

/* Turn the scores of a head into weights; return what they sum up to. */
INLINE float weigh(const struct task *t, float *scores) {
    float cap = t->a->cap, largest = -INFINITY, sum = 0;
    /* c tanh(s / c), by the exponential that is there. */
    for (long n = 0; cap > 0 && n < t->width; n += 16) {
        floats e = exp_of(LOAD(floats, scores + n) * (2 / cap));
        floats capped = cap - 2 * cap / (e + 1);
        memcpy(scores + n, &capped, sizeof capped);
    }
    for (long n = 0; n < t->count; n++) largest = scores[n] > largest ? scores[n] : largest;
    for (long n = 0; n < t->width; n += 16) {
        floats e = exp_of(LOAD(floats, scores + n) - largest);
        memcpy(scores + n, &e, sizeof e);
    }
    for (long n = 0; n < t->count; n++) sum += scores[n];
    return sum;
}

INLINE void blend(const struct task *t, const int is_bf16) {
    long vectors = t->a->size / 16;
    for (long n = 0; n < t->count; n++) {
        const char *value = place_of(t, t->a->values, t->first + n, is_bf16 ? 2 : 4);
        for (long c = 0; c < vectors; c++) {
            floats v = numbers(value, is_bf16, 16 * c);
            for (long h = 0; h < t->group; h++) {
                float *at = t->sums + h * t->a->size + c * 16;
                floats sum = LOAD(floats, at) + v * t->scores[h * t->width + n];
                memcpy(at, &sum, sizeof sum);
            }
        }
    }
}

INLINE void attend(const struct task *t, const int is_bf16, long first_head) {
    long size = t->a->size;
    for (long k = 0; k < t->group * size; k++)
        t->q[k] = value_at(t->a->q, is_bf16, first_head * size + k);
    memset(t->scores, 0, t->group * t->width * sizeof *t->scores);
    memset(t->sums, 0, t->group * size * sizeof *t->sums);
    score(t, is_bf16);
    float shares[t->group];
    for (long h = 0; h < t->group; h++) shares[h] = 1 / weigh(t, t->scores + h * t->width);
    blend(t, is_bf16);
    for (long h = 0; h < t->group; h++) {
        void *out = (void *)row_at(t->a->out, is_bf16, (first_head + h) * size);
        for (long k = 0; k < size; k += 16)
            put(out, is_bf16, k, LOAD(floats, t->sums + h * size + k) * shares[h]);
    }
}

static int run(const struct attention *a, long place) {
    long sequence = place / a->kv_heads, end = a->ends[sequence];
    struct task t = {.a = a, .pages = a->pages + a->begins[sequence]};
    t.kv_head = place % a->kv_heads;
    t.group = a->heads / a->kv_heads;
    t.first = a->window && a->window < end ? end - a->window : 0;
    t.count = end - t.first;
    t.width = (t.count + 15) / 16 * 16;
    float *memory = aligned_alloc(LINE, t.group * (t.width + 2 * a->size) * sizeof *memory);
    if (!memory) return 1;
    t.scores = memory;
    t.q = memory + t.group * t.width;
    t.sums = t.q + t.group * a->size;
    long first_head = sequence * a->heads + t.kv_head * t.group;
    if (a->is_bf16)
        attend(&t, 1, first_head);
    else
        attend(&t, 0, first_head);
    free(memory);
    return 0;
}

/* Attend one token of each sequence; return 0, or 1 where memory is out. */
int frugal_attend(const struct attention *a) {
    int failed = 0;
#pragma omp parallel for num_threads(a->threads) reduction(|: failed) if (a->threads > 1)
    for (long place = 0; place < a->sequences * a->kv_heads; place++) failed |= run(a, place);
    return failed;
}
