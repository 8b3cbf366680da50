// A Llama-shaped decoder in one call per step: norms, products, rotary embedding, paged
// attention and the gated MLP, with nothing between them but memory. The C interface below is what
// workers/kernels/library.py binds; the caller owns every array.
#include "attention.h"
#include "draws.h"
#include "product.h"

struct Layer {
    const float *input_norm, *mlp_norm;  // [hidden]
    Matrix qkv, output, gate, up, down;
};

struct Decoder {
    int32_t hidden, mlp_width;
    Heads heads;
    float norm_eps;
    const float* angles;  // [context, dim / 2] pairs of cosine and sine
    const Layer* layers;
};

// The requests of a step, in the order of their tokens. Block ids of all lie in one array.
struct Step {
    int32_t span_count, token_count;
    const int32_t *contexts, *counts, *block_counts, *block_ids;
    float* cache;
    int64_t layer_floats;
};

// What a decoder needs between its calls: threads, and memory that only grows.
struct Workspace {
    explicit Workspace(int threads) : team(threads), scores(threads) {}
    Team team;
    Activations activations;
    std::vector<float> qkv, attended, gated, tops;
    std::vector<Span> spans;
    std::vector<int> owners;  // of each token, its span
    std::vector<Piece> pieces;
    std::vector<std::vector<float>> scores;
    Weighed weighed;
};

namespace {

constexpr int TOKENS_PER_PIECE = 4;

float* room(std::vector<float>& memory, size_t count) {
    if (memory.size() < count) memory.resize(count);
    return memory.data();
}

// Makes rows [tokens, depth] what the matrix is multiplied with.
void take(Workspace& w, const float* rows, const Matrix& matrix, int tokens) {
    w.activations.resize(tokens, matrix.depth, matrix.steps);
    w.team.share(tokens, TOKENS_PER_PIECE, [&](int first, int last, int) {
        for (int token = first; token < last; token++)
            w.activations.take(rows + size_t(token) * matrix.depth, token);
    });
}

void norm(const float* x, const float* weight, int width, float eps, float* out) {
    Vec squares{};
    for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    const float factor = 1 / std::sqrt(sum(squares) / width + eps);
    for (int i = 0; i < width; i += LANES) store(out + i, load(x + i) * factor * load(weight + i));
}

void take_normed(Workspace& w, const Decoder& d, const float* hidden, const float* weight,
                 const Matrix& matrix, int tokens) {
    w.activations.resize(tokens, d.hidden, matrix.steps);
    w.team.share(tokens, TOKENS_PER_PIECE, [&](int first, int last, int) {
        std::vector<float> normed(d.hidden);
        for (int token = first; token < last; token++) {
            norm(hidden + size_t(token) * d.hidden, weight, d.hidden, d.norm_eps, normed.data());
            w.activations.take(normed.data(), token);
        }
    });
}

void read_spans(Workspace& w, const Decoder& d, const Step& step) {
    w.spans.clear();
    w.owners.clear();
    const int32_t* blocks = step.block_ids;
    for (int i = 0, start = 0; i < step.span_count; i++) {
        w.spans.push_back({start, step.counts[i], step.contexts[i], blocks});
        w.owners.insert(w.owners.end(), step.counts[i], i);
        start += step.counts[i];
        blocks += step.block_counts[i];
    }
    list_pieces(d.heads, w.spans, w.pieces);
}

void attend(Workspace& w, const Decoder& d, float* qkv, float* layer, float* out) {
    const int width = d.heads.qkv_width();
    w.team.share(int(w.owners.size()), TOKENS_PER_PIECE, [&](int first, int last, int) {
        for (int token = first; token < last; token++) {
            const Span& span = w.spans[w.owners[token]];
            const int position = span.context + token - span.start;
            rotate_and_keep(d.heads, span, position, d.angles + size_t(position) * d.heads.dim,
                            qkv + size_t(token) * width, layer);
        }
    });
    w.team.share(int(w.pieces.size()), 1, [&](int first, int last, int thread) {
        for (int i = first; i < last; i++) {
            const Piece& piece = w.pieces[i];
            attend_some(d.heads, layer, w.spans[piece.span], piece.kv_head, piece.first, piece.rows,
                        qkv, out, w.scores[thread]);
        }
    });
}

void run_layer(Workspace& w, const Decoder& d, const Layer& layer, float* cache, int tokens,
               float* hidden) {
    float* qkv = room(w.qkv, size_t(tokens) * d.heads.qkv_width());
    float* attended = room(w.attended, size_t(tokens) * d.heads.heads * d.heads.dim);
    float* gated = room(w.gated, size_t(tokens) * d.mlp_width);
    take_normed(w, d, hidden, layer.input_norm, layer.qkv, tokens);
    product<false>(w.team, layer.qkv, w.activations, tokens, qkv);
    attend(w, d, qkv, cache, attended);
    take(w, attended, layer.output, tokens);
    product<true>(w.team, layer.output, w.activations, tokens, hidden);
    take_normed(w, d, hidden, layer.mlp_norm, layer.gate, tokens);
    gated_product(w.team, layer.gate, layer.up, w.activations, tokens, gated);
    take(w, gated, layer.down, tokens);
    product<true>(w.team, layer.down, w.activations, tokens, hidden);
}

}  // namespace

extern "C" {

const char* kernel_instructions() { return INSTRUCTIONS; }

Workspace* kernel_open(int threads) { return new Workspace(threads); }

void kernel_close(Workspace* w) { delete w; }

// How weights [rows, depth] are best kept: a `Steps`, for the two calls below and for `Matrix`.
int kernel_best_steps(const float* weights, int rows, int depth) {
    return int(best_steps(weights, rows, depth));
}

int64_t kernel_packed_bytes(int rows, int depth, int steps) {
    return int64_t(tiles_of(rows) * tile_bytes(Steps(steps), depth));
}

// Packs into 64-byte aligned `out`; 0 if some weight has no finite fp16 scale.
int kernel_pack(const float* weights, int rows, int depth, int steps, uint8_t* out) {
    return Steps(steps) == Steps::NONE ? pack_exact(weights, rows, depth, out)
                                       : pack(weights, rows, depth, Steps(steps), out);
}

// out [tokens, rows] = x [tokens, depth] W^T + bias
void kernel_product(Workspace* w, const Matrix* matrix, const float* x, int tokens, float* out) {
    take(*w, x, *matrix, tokens);
    product<false>(w->team, *matrix, w->activations, tokens, out);
}

// Brings hidden states [tokens, hidden] through the first `depth` layers, in place.
void kernel_layers(Workspace* w, const Decoder* d, const Step* step, int depth, float* hidden) {
    read_spans(*w, *d, *step);
    for (int layer = 0; layer < depth; layer++)
        run_layer(*w, *d, d->layers[layer], step->cache + layer * step->layer_floats,
                  step->token_count, hidden);
}

// out [tokens, rows] = norm(hidden) [tokens, hidden] W^T
void kernel_normed_product(Workspace* w, const Decoder* d, const float* norm_weight,
                           const Matrix* matrix, const float* hidden, int tokens, float* out) {
    take_normed(*w, *d, hidden, norm_weight, *matrix, tokens);
    product<false>(w->team, *matrix, w->activations, tokens, out);
}

void kernel_peaks(Workspace* w, const float* logits, int rows, int width, float* values,
                  int32_t* places) {
    find_peaks(w->team, logits, rows, width, w->tops, values, places);
}

// A place of the row, by its softmax at that temperature and a chance in [0, 1).
int kernel_draw(Workspace* w, const float* logits, int width, float temperature, double chance) {
    w->weighed.take(logits, width, temperature);
    return w->weighed.place_of(chance, width);
}

// Places whose share of the softmax is at least `floor` times the largest, and their shares.
int kernel_likely(Workspace* w, const float* logits, int width, float temperature, float floor,
                  int64_t* places, float* shares) {
    w->weighed.take(logits, width, temperature);
    return w->weighed.at_least(floor, width, places, shares);
}

}  // extern "C"
