/* All layers for one token of a few sequences, in one call: what lies between products is so
 * little at this size that calling it from Python takes longer than doing it. */
#include "layer.h"

enum kind { BF16, INT8, INT4 };

struct product {
    long kind;
    struct weight weight;
};

/* Norms are NULL where the family has none. */
struct layer {
    const void *attention_norm, *qk_norm, *post_attention_norm, *mlp_norm, *post_mlp_norm;
    struct product qkv, output, gate_up, down;
    long window, rope;
};

struct decoder {
    const struct layer *layers;
    const void *norm;
    long count, hidden, heads, kv_heads, size, intermediate;
    float eps, scale, cap;
    int is_bf16, norm_is_bf16, qk_norm_is_bf16, is_gelu;
};

/* One token of each of `rows` sequences. `x` holds their embeddings and is overwritten, `out` gets
 * the normed states. There may be two sets of angles. */
struct step {
    void *x, *out;
    const void *cos[2], *sin[2];
    const int64_t *slots, *begins, *ends;
    const int32_t *pages;
    void *const *keys, *const *values; /* one pool a layer */
    long rows, page_size, turned[2];
    int threads;
};

/* What a layer computes on its way, row after row. */
struct scratch {
    char *normed, *delta, *qkv, *q, *attended, *both, *gated;
};

static int multiply(
    const struct decoder *d, const struct step *s, const struct product *p, const void *x, void *y
) {
    struct rows io = {x, y, s->rows, d->is_bf16, d->is_bf16, s->threads};
    if (p->kind == BF16) return frugal_bf16(&p->weight, &io);
    return p->kind == INT8 ? frugal_int8(&p->weight, &io) : frugal_int4(&p->weight, &io);
}

static void normalize(
    const struct decoder *d, const struct step *s, const void *delta, const void *weight, void *x,
    void *out
) {
    struct norm call = {
        x, delta, weight, x, out, s->rows, d->hidden, d->eps, d->is_bf16, d->norm_is_bf16
    };
    frugal_norm(&call);
}

static int attend(
    const struct decoder *d, const struct step *s, const struct layer *l, long index,
    const struct scratch *t
) {
    void *keys = s->keys[index], *values = s->values[index];
    struct turn turn = {
        t->qkv, s->cos[l->rope], s->sin[l->rope], l->qk_norm, t->q, keys, values, s->slots,
        s->rows, d->heads, d->kv_heads, d->size, s->turned[l->rope],
        (d->heads + 2 * d->kv_heads) * d->size, d->eps, d->is_bf16, d->qk_norm_is_bf16
    };
    frugal_turn(&turn);
    struct attention attention = {
        t->q, keys, values, t->attended, s->pages, s->begins, s->ends, s->rows, d->heads,
        d->kv_heads, d->size, s->page_size, l->window, d->scale, d->cap, d->is_bf16, s->threads
    };
    return frugal_attend(&attention);
}

/* Add a layer to x; what its second half gives stays in `delta` for whoever comes next. */
static int run_layer(
    const struct decoder *d, const struct step *s, long index, const struct scratch *t
) {
    const struct layer *l = d->layers + index;
    normalize(d, s, index ? t->delta : NULL, l->attention_norm, s->x, t->normed);
    if (multiply(d, s, &l->qkv, t->normed, t->qkv) || attend(d, s, l, index, t)) return 1;
    if (multiply(d, s, &l->output, t->attended, t->delta)) return 1;
    if (l->post_attention_norm)
        normalize(d, s, NULL, l->post_attention_norm, t->delta, t->delta);
    normalize(d, s, t->delta, l->mlp_norm, s->x, t->normed);
    if (multiply(d, s, &l->gate_up, t->normed, t->both)) return 1;
    struct gate gate = {t->both, t->gated, s->rows, d->intermediate, d->is_bf16, d->is_gelu};
    frugal_gate(&gate);
    if (multiply(d, s, &l->down, t->gated, t->delta)) return 1;
    if (l->post_mlp_norm) normalize(d, s, NULL, l->post_mlp_norm, t->delta, t->delta);
    return 0;
}

/* Run all layers and the last norm; return 0, or 1 where memory is out. */
int frugal_decode(const struct decoder *d, const struct step *s) {
    long q = d->heads * d->size, qkv = q + 2 * d->kv_heads * d->size;
    long widths[] = {d->hidden, d->hidden, qkv, q, q, 2 * d->intermediate, d->intermediate};
    struct scratch t;
    char **parts[] = {&t.normed, &t.delta, &t.qkv, &t.q, &t.attended, &t.both, &t.gated};
    size_t each[7], whole = 0;
    for (int n = 0; n < 7; n++) {
        each[n] = (s->rows * widths[n] * (d->is_bf16 ? 2 : 4) + LINE - 1) / LINE * LINE;
        whole += each[n];
    }
    char *memory = aligned_alloc(LINE, whole), *at = memory;
    if (!memory) return 1;
    for (int n = 0; n < 7; at += each[n++]) *parts[n] = at;
    int failed = 0;
    for (long index = 0; index < d->count && !failed; index++) failed = run_layer(d, s, index, &t);
    if (!failed) normalize(d, s, t.delta, d->norm, s->x, s->out);
    free(memory);
    return failed;
}
