// Products of weights with activations: int8 with int8, or fp32 with fp32.
//
// Weights: unsigned numbers of 8 bits in groups of 32 inputs, each group with a scale and a minimum
// in fp16, so that w = minimum + scale * factor * number. As many rows as there are lanes (16 or 8)
// are interleaved into a tile, in the order in which the product reads them:
//
//   tile = per group of 32 inputs: [8][rows][4 inputs] bytes, a scale and a minimum for each row
//
// The places of the 256 steps are chosen per matrix (`Steps`). Where the weights were made of 4
// bits that is seen, and 4 bits are kept: [4][rows][4 inputs] bytes, whose high halves are the
// second 16 inputs. Weights of a Q4_1 or Q8_0 file lose nothing.
// Activations: signed bytes with one fp32 scale per group of 32, made anew for every token.
//
// Exact weights are fp32 as they came, [depth][rows] in each tile, and meet activations as they are.
// What one token gets never depends on the tokens beside it: the sums are in the same order for all.
#pragma once
#include <vector>

#include "lanes.h"
#include "team.h"

constexpr int GROUP = 32;
constexpr int GROUP_VECTORS = GROUP / LANES;
constexpr int CACHE_LINE = 64;

// How the numbers of a group lie between its smallest and largest weight.
enum class Steps : int32_t {
    SIXTEEN,           // 4 bits between the extremes, taken only where that is exact
    BETWEEN_EXTREMES,  // 8 bits
    AROUND_ZERO,       // 8 bits, symmetric: exact for Q8_0
    NONE,              // fp32
};

struct Matrix {
    const uint8_t* tiles;
    const float* bias;  // [rows] or null
    int32_t rows, depth;
    Steps steps;
};

constexpr int number_bytes(Steps steps) {
    return steps == Steps::SIXTEEN ? GROUP * LANES / 2 : GROUP * LANES;
}

// One tile and group: numbers, scales, minimums.
constexpr int piece_bytes(Steps steps) { return number_bytes(steps) + 2 * LANES * 2; }

// The square of what fp32 rounds away, relative, with some room.
constexpr double ROUNDING_ERROR = 1e-13;

constexpr size_t EXACT_AHEAD = 4096;  // bytes that exact weights are fetched ahead
// As many tokens as the registers hold two sums of two tiles for; with fewer than so many in all,
// weights wait for memory, and to read two tiles in turn is slower.
constexpr int PAIRED_TOKENS = LANES == 16 ? 6 : 2;
constexpr int PAIRED_MIN = 48;

inline int groups_of(int depth) { return (depth + GROUP - 1) / GROUP; }
inline int tiles_of(int rows) { return (rows + LANES - 1) / LANES; }

inline size_t tile_bytes(Steps steps, int depth) {
    return steps == Steps::NONE ? size_t(depth) * LANES * sizeof(float)
                                : size_t(groups_of(depth)) * piece_bytes(steps);
}

// ---- packing ------------------------------------------------------------------------------------

struct GroupCode {
    uint16_t scale, minimum;
    Vec numbers[GROUP_VECTORS];
    double squared_error;
    bool is_exact;
};

// Between extremes the scale is a fifteenth of the range. 8 bits make 17 steps of it, so that a
// group of 16 values with an fp16 scale, which is what Q4_1 is, falls on every 17th step.
inline float factor_of(Steps steps) { return steps == Steps::BETWEEN_EXTREMES ? 1 / 17.0f : 1.0f; }

inline GroupCode encode(const float* weights, Steps steps) {
    Vec above = load(weights), below = -above;
    for (int i = LANES; i < GROUP; i += LANES) {
        above = bigger(above, load(weights + i));
        below = bigger(below, -load(weights + i));
    }
    const float high = largest(above), low = -largest(below);
    const float peak = std::fmax(high, -low);
    const bool is_around = steps == Steps::AROUND_ZERO;
    GroupCode code{};
    code.scale = _cvtss_sh(is_around ? peak / 127 : (high - low) / 15, _MM_FROUND_TO_NEAREST_INT);
    const float base = is_around ? -128 * _cvtsh_ss(code.scale) : low;
    code.minimum = _cvtss_sh(base, _MM_FROUND_TO_NEAREST_INT);
    const float step = _cvtsh_ss(code.scale) * factor_of(steps), start = _cvtsh_ss(code.minimum);
    const Vec last = all(steps == Steps::SIXTEEN ? 15 : 255);
    for (int part = 0; part < GROUP_VECTORS; part++) {
        const Vec weight = load(weights + part * LANES);
        const Vec place = step > 0 ? (weight - start) / step : Vec{};
        const Vec kept = -bigger(-bigger(place, Vec{}), -last);
        code.numbers[part] = (kept + ROUNDING) - ROUNDING;
        const Vec error = weight - (start + step * code.numbers[part]);
        code.squared_error += sum(error * error);
    }
    code.is_exact = code.squared_error <= GROUP * double(peak) * peak * ROUNDING_ERROR;
    return code;
}

// A last group that is not full repeats its first weight; its activations are zero.
inline GroupCode encode_group(const float* row, int group, int depth, Steps steps) {
    const int first = group * GROUP;
    float padded[GROUP];
    for (int i = 0; i < GROUP; i++) padded[i] = row[first + i < depth ? first + i : first];
    return encode(padded, steps);
}

inline bool is_exact(Steps steps, const float* weights, int rows, int depth) {
    for (int row = 0; row < rows; row++)
        for (int group = 0; group < groups_of(depth); group++)
            if (!encode_group(weights + size_t(row) * depth, group, depth, steps).is_exact)
                return false;
    return true;
}

inline double sampled_error(Steps steps, const float* weights, int rows, int depth) {
    double error = 0;
    for (int row = 0; row < rows; row += LANES)
        for (int group = 0; group < groups_of(depth); group++)
            error += encode_group(weights + size_t(row) * depth, group, depth, steps).squared_error;
    return error;
}

inline Steps best_steps(const float* weights, int rows, int depth) {
    if (is_exact(Steps::SIXTEEN, weights, rows, depth)) return Steps::SIXTEEN;
    const double between = sampled_error(Steps::BETWEEN_EXTREMES, weights, rows, depth);
    const double around = sampled_error(Steps::AROUND_ZERO, weights, rows, depth);
    return around < between ? Steps::AROUND_ZERO : Steps::BETWEEN_EXTREMES;
}

inline void put_group(const GroupCode& code, Steps steps, int lane, uint8_t* piece) {
    const int half = number_bytes(steps) / LANES;  // inputs until the high halves begin
    for (int i = 0; i < GROUP; i++) {
        const int number = int(code.numbers[i / LANES][i % LANES]);
        const int place = i % half;
        piece[place / 4 * 4 * LANES + lane * 4 + place % 4] |= number << (i < half ? 0 : 4);
    }
    uint16_t* scales = reinterpret_cast<uint16_t*>(piece + number_bytes(steps));
    scales[lane] = code.scale;
    scales[LANES + lane] = code.minimum;
}

// Packs [rows, depth]; false if some weight has no finite fp16 scale.
inline bool pack(const float* weights, int rows, int depth, Steps steps, uint8_t* out) {
    double squared_error = 0;
    const int groups = groups_of(depth);
    memset(out, 0, size_t(tiles_of(rows)) * groups * piece_bytes(steps));
    for (int row = 0; row < rows; row++)
        for (int group = 0; group < groups; group++) {
            const GroupCode code = encode_group(weights + size_t(row) * depth, group, depth, steps);
            squared_error += code.squared_error;
            const size_t piece = size_t(row / LANES) * groups + group;
            put_group(code, steps, row % LANES, out + piece * piece_bytes(steps));
        }
    return std::isfinite(squared_error);
}

// The same for weights that stay as they are.
inline bool pack_exact(const float* weights, int rows, int depth, uint8_t* out) {
    float* tiles = reinterpret_cast<float*>(out);
    for (int row = 0; row < tiles_of(rows) * LANES; row++)
        for (int i = 0; i < depth; i++) {
            float* at = tiles + (size_t(row / LANES) * depth + i) * LANES + row % LANES;
            *at = row < rows ? weights[size_t(row) * depth + i] : 0;
        }
    return true;
}

// ---- activations --------------------------------------------------------------------------------

struct Activations {
    std::vector<int8_t> bytes;  // [tokens, groups * 32]
    std::vector<float> scales;  // [tokens, groups]
    std::vector<float> sums;    // [tokens, groups]: scale times the sum of the bytes
    std::vector<float> exact;   // [tokens, depth], instead of all these
    int groups = 0, depth = 0;
    bool is_exact = false;

    void resize(int tokens, int new_depth, Steps steps) {
        depth = new_depth;
        groups = groups_of(depth);
        is_exact = steps == Steps::NONE;
        if (is_exact) {
            if (exact.size() < size_t(tokens) * depth) exact.resize(size_t(tokens) * depth);
            return;
        }
        const size_t count = size_t(tokens) * groups;
        if (bytes.size() < count * GROUP) {
            bytes.resize(count * GROUP);
            scales.resize(count);
            sums.resize(count);
        }
    }

    void take(const float* row, int token) {
        if (is_exact) memcpy(&exact[size_t(token) * depth], row, depth * sizeof(float));
        else quantise(row, token);
    }

  private:
    void quantise(const float* row, int token) {
        Vec poison{};
        for (int group = 0; group < groups; group++) {
            float padded[GROUP] = {};
            const int first = group * GROUP, count = std::min(GROUP, depth - first);
            memcpy(padded, row + first, count * sizeof(float));
            Vec peaks{};
            for (int i = 0; i < GROUP; i += LANES) {
                poison += load(padded + i) * 0.0f;
                peaks = bigger(peaks, magnitude(load(padded + i)));
            }
            quantise_group(padded, largest(peaks), size_t(token) * groups + group);
        }
        // Comparisons lose a NaN, and bytes cannot hold one: the scales must carry it on.
        const float poisoned = sum(poison);
        if (poisoned != 0)
            for (int group = 0; group < groups; group++)
                scales[size_t(token) * groups + group] = poisoned;
    }

    void quantise_group(const float* numbers, float peak, size_t at) {
        typedef int8_t Bytes __attribute__((vector_size(LANES)));
        const float inverse = peak > 0 ? 127 / peak : 0;
        IntVec total{};
        for (int i = 0; i < GROUP; i += LANES) {
            const Vec rounded = load(numbers + i) * inverse + ROUNDING;
            const IntVec whole = (IntVec)rounded - (IntVec)all(ROUNDING);
            const Bytes narrow = __builtin_convertvector(whole, Bytes);
            memcpy(&bytes[at * GROUP + i], &narrow, sizeof narrow);
            total += whole;
        }
        scales[at] = peak / 127;
        sums[at] = scales[at] * sum(__builtin_convertvector(total, Vec));
    }
};

// ---- product ------------------------------------------------------------------------------------

template <int TOKENS, bool FOUR_BITS>
inline void multiply_tokens(const uint8_t* piece, float factor, const Activations& x, int token,
                            Vec* out) {
    constexpr Steps steps = FOUR_BITS ? Steps::SIXTEEN : Steps::BETWEEN_EXTREMES;
    constexpr int chunks = GROUP / 4, kept_chunks = FOUR_BITS ? chunks / 2 : chunks;
    const int groups = x.groups;
    const size_t first = size_t(token) * groups;
    Vec scaled[TOKENS] = {}, shifted[TOKENS] = {};
    for (int group = 0; group < groups; group++, piece += piece_bytes(steps)) {
        // The next tile comes from memory while this one is computed, and is there when it is due.
        for (int line = 0; line < piece_bytes(steps); line += CACHE_LINE)
            __builtin_prefetch(piece + size_t(groups) * piece_bytes(steps) + line, 0, 2);
        Sums sums[TOKENS];
        for (int i = 0; i < chunks; i++) {
            const Weights weights = load_weights(piece + i % kept_chunks * 4 * LANES);
            const Weights nibbles = i < kept_chunks ? low_nibbles(weights) : high_nibbles(weights);
            for (int t = 0; t < TOKENS; t++) {
                const size_t at = first + size_t(t) * groups + group;
                const int8_t* four = &x.bytes[at * GROUP + i * 4];
                if (FOUR_BITS) sums[t].add_nibbles(nibbles, four);
                else sums[t].add(weights, four);
            }
        }
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(piece + number_bytes(steps));
        const Vec scale = load_half(halves) * factor, minimum = load_half(halves + LANES);
        for (int t = 0; t < TOKENS; t++) {
            const size_t at = first + size_t(t) * groups + group;
            scaled[t] += sums[t].floats() * (scale * x.scales[at]);
            shifted[t] += minimum * x.sums[at];
        }
    }
    for (int t = 0; t < TOKENS; t++) out[t] = scaled[t] + shifted[t];
}

// Two sums for each token: one alone would wait for itself.
template <int TOKENS>
inline void multiply_exactly(const float* tile, const Activations& x, int token, Vec* out) {
    const size_t depth = x.depth;
    const float* rows = &x.exact[token * depth];
    Vec even[TOKENS] = {}, odd[TOKENS] = {};
    for (size_t i = 0; i + 1 < depth; i += 2, tile += 2 * LANES) {
        for (int v = 0; v < 2; v++)
            __builtin_prefetch(reinterpret_cast<const char*>(tile + v * LANES) + EXACT_AHEAD, 0, 2);
        const Vec first = load(tile), second = load(tile + LANES);
        for (int t = 0; t < TOKENS; t++) {
            even[t] += first * rows[t * depth + i];
            odd[t] += second * rows[t * depth + i + 1];
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        if (depth % 2) even[t] += load(tile) * rows[t * depth + depth - 1];
        out[t] = even[t] + odd[t];
    }
}

// Two tiles at once, for many tokens: a token's numbers are loaded once for both. Every sum has the
// order of one tile alone, so that no bit depends on how many tokens there are.
template <int TOKENS>
inline void multiply_two_exactly(const float* tile, const float* other, const Activations& x,
                                 int token, Vec* out, Vec* other_out) {
    const size_t depth = x.depth;
    const float* rows = &x.exact[token * depth];
    Vec even[TOKENS] = {}, odd[TOKENS] = {}, other_even[TOKENS] = {}, other_odd[TOKENS] = {};
    const auto add = [&](size_t i, Vec* sums, Vec* other_sums) {
        const Vec weights = load(tile + i * LANES), other_weights = load(other + i * LANES);
        for (int t = 0; t < TOKENS; t++) {
            const Vec number = all(rows[t * depth + i]);
            sums[t] += weights * number;
            other_sums[t] += other_weights * number;
        }
    };
    size_t i = 0;
    for (; i + 1 < depth; i += 2) {
        add(i, even, other_even);
        add(i + 1, odd, other_odd);
    }
    if (i < depth) add(i, even, other_even);
    for (int t = 0; t < TOKENS; t++) {
        out[t] = even[t] + odd[t];
        other_out[t] = other_even[t] + other_odd[t];
    }
}

inline const float* exact_tile(const Matrix& w, int tile) {
    return reinterpret_cast<const float*>(w.tiles + size_t(tile) * tile_bytes(w.steps, w.depth));
}

inline void add_bias(const Matrix& w, int tile, int count, Vec* out) {
    if (!w.bias) return;
    for (int t = 0; t < count; t++)
        out[t] += load_part(w.bias + tile * LANES, w.rows - tile * LANES);
}

// A tile's rows times `count` tokens, at most COUNT_MAX.
template <int COUNT_MAX = TOKENS_AT_ONCE>
inline void multiply(const Matrix& w, int tile, const Activations& x, int token, int count,
                     Vec* out) {
    if (count == COUNT_MAX) {
        const uint8_t* piece = w.tiles + size_t(tile) * tile_bytes(w.steps, x.depth);
        const float factor = factor_of(w.steps);
        if (w.steps == Steps::NONE)
            multiply_exactly<COUNT_MAX>(reinterpret_cast<const float*>(piece), x, token, out);
        else if (w.steps == Steps::SIXTEEN)
            multiply_tokens<COUNT_MAX, true>(piece, factor, x, token, out);
        else
            multiply_tokens<COUNT_MAX, false>(piece, factor, x, token, out);
        add_bias(w, tile, count, out);
    } else if constexpr (COUNT_MAX > 1) {
        multiply<COUNT_MAX - 1>(w, tile, x, token, count, out);
    }
}

// put(token, sum, other_sum) for every token times two tiles, in the order of tokens.
template <typename Put>
void multiply_two(const Matrix& w, int tile, const Matrix& other, int other_tile,
                  const Activations& x, int tokens, const Put& put) {
    Vec sums[TOKENS_AT_ONCE], other_sums[TOKENS_AT_ONCE];
    int token = 0;
    const auto put_all = [&](int count) {
        for (int t = 0; t < count; t++) put(token + t, sums[t], other_sums[t]);
        token += count;
    };
    if (x.is_exact && tokens >= PAIRED_MIN)
        while (token + PAIRED_TOKENS <= tokens) {
            multiply_two_exactly<PAIRED_TOKENS>(exact_tile(w, tile), exact_tile(other, other_tile),
                                                x, token, sums, other_sums);
            add_bias(w, tile, PAIRED_TOKENS, sums);
            add_bias(other, other_tile, PAIRED_TOKENS, other_sums);
            put_all(PAIRED_TOKENS);
        }
    while (token < tokens) {
        const int count = std::min(TOKENS_AT_ONCE, tokens - token);
        multiply(w, tile, x, token, count, sums);
        multiply(other, other_tile, x, token, count, other_sums);
        put_all(count);
    }
}

// out [tokens, rows] = or += x W^T + bias. Tiles stay in the first caches while all tokens pass.
template <bool ADD>
void product(Team& team, const Matrix& w, const Activations& x, int tokens, float* out) {
    const auto put = [&](int token, int tile, Vec sum) {
        const int left = w.rows - tile * LANES;
        float* to = out + size_t(token) * w.rows + tile * LANES;
        store_part(to, ADD ? sum + load_part(to, left) : sum, left);
    };
    team.share(tiles_of(w.rows), 2, [&](int first, int last, int) {
        int tile = first;
        for (; tile + 1 < last; tile += 2)
            multiply_two(w, tile, w, tile + 1, x, tokens, [&](int token, Vec sum, Vec next_sum) {
                put(token, tile, sum);
                put(token, tile + 1, next_sum);
            });
        if (tile < last)
            for (int token = 0; token < tokens; token += TOKENS_AT_ONCE) {
                Vec sums[TOKENS_AT_ONCE];
                const int count = std::min(TOKENS_AT_ONCE, tokens - token);
                multiply(w, tile, x, token, count, sums);
                for (int t = 0; t < count; t++) put(token + t, tile, sums[t]);
            }
    });
}

// out [tokens, rows] = silu(x Gate^T) * (x Up^T)
inline void gated_product(Team& team, const Matrix& gate, const Matrix& up, const Activations& x,
                          int tokens, float* out) {
    team.share(tiles_of(gate.rows), 2, [&](int first, int last, int) {
        for (int tile = first; tile < last; tile++)
            multiply_two(gate, tile, up, tile, x, tokens, [&](int token, Vec sum, Vec up_sum) {
                store_part(out + size_t(token) * gate.rows + tile * LANES, silu(sum) * up_sum,
                           gate.rows - tile * LANES);
            });
    });
}
