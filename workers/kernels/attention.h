// Attention over the paged cache, straight from its blocks.
//
// A block of 16 positions holds, per KV head, its keys as [dim][16] and then its values as
// [16][dim]: the lanes of a vector are positions of one key dimension, so that scores need no sums
// across lanes. Rows (a query head of a token) that share a KV head pass the keys together.
#pragma once
#include <algorithm>
#include <vector>

#include "lanes.h"
#include "team.h"

constexpr int BLOCK = 16;
constexpr int BLOCK_VECTORS = BLOCK / LANES;
constexpr int ROWS_AT_ONCE = 6;

struct Heads {
    int32_t heads, kv_heads, dim;
    int group() const { return heads / kv_heads; }
    int qkv_width() const { return (heads + 2 * kv_heads) * dim; }
    size_t block_floats() const { return size_t(2) * BLOCK * kv_heads * dim; }
};

// One request's part of the step: tokens [start, start + count) after `context` others.
struct Span {
    int32_t start, count, context;
    const int32_t* blocks;
};

inline float* keys_of(const Heads& h, float* layer, const Span& span, int block, int kv_head) {
    return layer + span.blocks[block] * h.block_floats() + size_t(kv_head) * h.dim * BLOCK;
}

inline float* values_of(const Heads& h, float* layer, const Span& span, int block, int kv_head) {
    return keys_of(h, layer, span, block, kv_head) + size_t(h.kv_heads) * h.dim * BLOCK;
}

// Turns the pairs of a head: (a, b) -> (a cos - b sin, b cos + a sin). Rows of the weights stand in
// the order that makes the two of a pair neighbours; `angles` are theirs, as (cos, sin).
inline void rotate(float* head, int dim, const float* angles) {
    const IntVec lane = numbers();
    const Vec sign = __builtin_convertvector((lane & 1) * 2 - 1, Vec);
    for (int i = 0; i < dim; i += LANES) {
        const Vec pairs = load(head + i), angle = load(angles + i);
        const Vec cosines = __builtin_shuffle(angle, lane & ~1);
        const Vec sines = __builtin_shuffle(angle, lane | 1) * sign;
        store(head + i, pairs * cosines + __builtin_shuffle(pairs, lane ^ 1) * sines);
    }
}

// Rotates one token's queries and keys in place, and puts its keys and values into their block.
inline void rotate_and_keep(const Heads& h, const Span& span, int position, const float* angles,
                            float* qkv, float* layer) {
    for (int head = 0; head < h.heads + h.kv_heads; head++)
        rotate(qkv + head * h.dim, h.dim, angles);
    const float* key = qkv + h.heads * h.dim;
    const float* value = key + h.kv_heads * h.dim;
    const int block = position / BLOCK, lane = position % BLOCK;
    for (int head = 0; head < h.kv_heads; head++, key += h.dim, value += h.dim) {
        float* keys = keys_of(h, layer, span, block, head);
        for (int i = 0; i < h.dim; i++) keys[i * BLOCK + lane] = key[i];
        float* values = values_of(h, layer, span, block, head);
        memcpy(values + lane * h.dim, value, h.dim * sizeof(float));
    }
}

// So many sums are under way at once that none has to wait for the one before it.
constexpr int SUMS_AT_ONCE = 12;

constexpr int blocks_at_once(int rows) { return std::max(1, SUMS_AT_ONCE / rows / BLOCK_VECTORS); }

// scores[row][position] of ROWS queries over BLOCKS blocks of keys, while the next come from memory.
template <int ROWS, int BLOCKS>
void score_blocks(int dim, const float* const* keys, const float* const* next,
                  const float* const* queries, float* scores, int stride) {
    Vec sums[BLOCKS][BLOCK_VECTORS][ROWS] = {};
    for (int i = 0; i < dim; i++) {
        for (int block = 0; block < BLOCKS; block++) prefetch(next[block] + i * BLOCK);
        for (int block = 0; block < BLOCKS; block++)
            for (int v = 0; v < BLOCK_VECTORS; v++) {
                const Vec key = load(keys[block] + i * BLOCK + v * LANES);
                for (int row = 0; row < ROWS; row++) sums[block][v][row] += key * queries[row][i];
            }
    }
    for (int block = 0; block < BLOCKS; block++)
        for (int v = 0; v < BLOCK_VECTORS; v++)
            for (int row = 0; row < ROWS; row++)
                store(scores + row * stride + block * BLOCK + v * LANES, sums[block][v][row]);
}

template <int ROWS>
void score(const Heads& h, float* layer, const Span& span, int kv_head, int blocks,
           const float* const* queries, float* scores, int stride) {
    constexpr int AT_ONCE = blocks_at_once(ROWS);
    // Behind the last keys the first values are due.
    const auto keys_or_values = [&](int block) {
        return block < blocks ? keys_of(h, layer, span, block, kv_head)
                              : values_of(h, layer, span, std::min(block - blocks, blocks - 1),
                                          kv_head);
    };
    const float* keys[2 * AT_ONCE];
    int block = 0;
    for (; block + AT_ONCE <= blocks; block += AT_ONCE) {
        for (int i = 0; i < 2 * AT_ONCE; i++) keys[i] = keys_or_values(block + i);
        score_blocks<ROWS, AT_ONCE>(h.dim, keys, keys + AT_ONCE, queries, scores + block * BLOCK,
                                    stride);
    }
    for (; block < blocks; block++) {
        for (int i = 0; i < 2; i++) keys[i] = keys_or_values(block + i);
        score_blocks<ROWS, 1>(h.dim, keys, keys + 1, queries, scores + block * BLOCK, stride);
    }
}

// Scores become weights in place, zero from `visible` on; the factor that makes their sum 1.
inline float soften(float* scores, int stride, int visible, float scale) {
    Vec peak = all(-INFINITY), total{};
    for (int first = 0; first < stride; first += LANES) {
        const Vec value = load(scores + first) * scale;
        peak = bigger(peak, numbers() + first < visible ? value : all(-INFINITY));
    }
    const float top = largest(peak);
    for (int first = 0; first < stride; first += LANES) {
        const Vec weight = exponential(load(scores + first) * scale - top);
        const Vec kept = numbers() + first < visible ? weight : Vec{};
        total += kept;
        store(scores + first, kept);
    }
    return 1 / sum(total);
}

// out[row] = sum over positions of weight * value, in slices of VECTORS registers.
template <int ROWS, int VECTORS>
void weigh(const Heads& h, float* layer, const Span& span, int kv_head, int length,
           const float* weights, int stride, const float* factors, float* const* out) {
    const int blocks = (length + BLOCK - 1) / BLOCK;
    for (int slice = 0; slice < h.dim; slice += VECTORS * LANES) {
        Vec sums[ROWS][VECTORS] = {};
        for (int block = 0; block < blocks; block++) {
            const int first = block * BLOCK, count = std::min(BLOCK, length - first);
            const float* values = values_of(h, layer, span, block, kv_head) + slice;
            const float* next =
                values_of(h, layer, span, std::min(block + 1, blocks - 1), kv_head) + slice;
            for (int i = 0; i < count; i++)
                for (int v = 0; v < VECTORS; v++) {
                    prefetch(next + i * h.dim + v * LANES);
                    const Vec value = load(values + i * h.dim + v * LANES);
                    for (int row = 0; row < ROWS; row++)
                        sums[row][v] += value * weights[row * stride + first + i];
                }
        }
        for (int row = 0; row < ROWS; row++)
            for (int v = 0; v < VECTORS; v++)
                store(out[row] + slice + v * LANES, sums[row][v] * factors[row]);
    }
}

// Rows [first, first + ROWS) of a span and KV head; row = token * group + query head.
template <int ROWS>
void attend_rows(const Heads& h, float* layer, const Span& span, int kv_head, int first,
                 const float* qkv, float* out, std::vector<float>& scores) {
    const float* queries[ROWS];
    float* results[ROWS];
    float factors[ROWS];
    const int group = h.group();
    const int length = span.context + (first + ROWS - 1) / group + 1;
    const int blocks = (length + BLOCK - 1) / BLOCK, stride = blocks * BLOCK;
    if (scores.size() < size_t(stride) * ROWS) scores.resize(size_t(stride) * ROWS);
    for (int row = 0; row < ROWS; row++) {
        const size_t token = span.start + (first + row) / group;
        const int head = kv_head * group + (first + row) % group;
        queries[row] = qkv + token * h.qkv_width() + head * h.dim;
        results[row] = out + (token * h.heads + head) * h.dim;
    }
    score<ROWS>(h, layer, span, kv_head, blocks, queries, scores.data(), stride);
    const float scale = 1 / std::sqrt(float(h.dim));
    for (int row = 0; row < ROWS; row++) {
        const int visible = span.context + (first + row) / group + 1;
        factors[row] = soften(scores.data() + row * stride, stride, visible, scale);
    }
    const auto weigh_all = h.dim % (VECTORS_AT_ONCE * LANES) ? weigh<ROWS, 1>
                                                              : weigh<ROWS, VECTORS_AT_ONCE>;
    weigh_all(h, layer, span, kv_head, length, scores.data(), stride, factors, results);
}

template <int ROWS_MAX = ROWS_AT_ONCE>
void attend_some(const Heads& h, float* layer, const Span& span, int kv_head, int first, int rows,
                 const float* qkv, float* out, std::vector<float>& scores) {
    if (rows == ROWS_MAX)
        attend_rows<ROWS_MAX>(h, layer, span, kv_head, first, qkv, out, scores);
    else if constexpr (ROWS_MAX > 1)
        attend_some<ROWS_MAX - 1>(h, layer, span, kv_head, first, rows, qkv, out, scores);
}

// A piece of attention's work: some rows of one span and KV head.
struct Piece {
    int32_t span, kv_head, first, rows;
};

inline void list_pieces(const Heads& h, const std::vector<Span>& spans,
                        std::vector<Piece>& pieces) {
    pieces.clear();
    for (int span = 0; span < int(spans.size()); span++)
        for (int kv_head = 0; kv_head < h.kv_heads; kv_head++)
            for (int first = 0, rows = spans[span].count * h.group(); first < rows;
                 first += ROWS_AT_ONCE)
                pieces.push_back({span, kv_head, first, std::min(ROWS_AT_ONCE, rows - first)});
}
