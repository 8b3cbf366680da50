// One register of fp32 lanes, and the one thing that differs between processors: the product of
// bytes.
//
// Arithmetic is written once, on the compiler's vector type, for 16 lanes with AVX-512 and 8 with
// AVX2. Never compiled with -ffast-math: NaN must come out where NaN went in.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "these kernels need AVX2, FMA and F16C"
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define HAS_VNNI
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23: to add it is to round to an integer
typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4)));
typedef float LooseVec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

// 0, 1, 2, ... : the number of each lane.
inline IntVec numbers() {
    IntVec lanes{};
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }
inline void prefetch(const void* from) { __builtin_prefetch(from, 0, 3); }
inline Vec all(float value) { return Vec{} + value; }

// The first `count` lanes of memory that ends there.
inline Vec load_part(const float* from, int count) {
    if (count >= LANES) return load(from);
    float lanes[LANES] = {};
    memcpy(lanes, from, count * sizeof(float));
    return load(lanes);
}

inline void store_part(float* to, Vec value, int count) {
    if (count >= LANES) return store(to, value);
    float lanes[LANES];
    store(lanes, value);
    memcpy(to, lanes, count * sizeof(float));
}

inline Vec bigger(Vec a, Vec b) { return a < b ? b : a; }
inline Vec magnitude(Vec v) { return (Vec)((IntVec)v & 0x7fffffff); }

// Combines every lane with the lanes (8,) 4, 2 and 1 away from it, so that each holds the whole.
template <int AWAY = LANES / 2, typename Combine>
inline Vec across(Vec v, const Combine& combine) {
    v = combine(v, __builtin_shuffle(v, numbers() ^ AWAY));
    if constexpr (AWAY > 1) return across<AWAY / 2>(v, combine);
    return v;
}

inline float sum(Vec v) {
    return across(v, [](Vec a, Vec b) { return a + b; })[0];
}

inline float largest(Vec v) { return across(v, bigger)[0]; }

// e^x to 2 ulp: a power of two by the exponent bits times a polynomial on [-ln2/2, ln2/2].
// Below -87 it is e^-87, about 1e-38; NaN stays NaN because the polynomial is fed with x itself.
inline Vec exponential(Vec x) {
    x = x < all(-87.0f) ? all(-87.0f) : x;
    x = x > all(88.0f) ? all(88.0f) : x;
    const Vec shifted = x * 1.44269504f + ROUNDING;
    const Vec whole = shifted - ROUNDING;
    const Vec rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    Vec p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    const IntVec power = __builtin_convertvector(whole, IntVec);
    return p * (Vec)((power + 127) << 23);
}

inline Vec silu(Vec x) { return x / (1.0f + exponential(-x)); }

#ifdef HAS_VNNI

constexpr const char* INSTRUCTIONS = "avx512-vnni";
constexpr int TOKENS_AT_ONCE = 8;   // as many share a load of weights as the registers can hold
constexpr int VECTORS_AT_ONCE = 4;  // of attention's values

inline Vec load_half(const uint16_t* from) {
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// Four unsigned bytes for each lane's row.
typedef __m512i Weights;

inline Weights load_weights(const uint8_t* from) { return _mm512_load_si512(from); }
inline Weights low_nibbles(Weights w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
inline Weights high_nibbles(Weights w) { return low_nibbles(_mm512_srli_epi16(w, 4)); }

// A sum of products of unsigned bytes with signed bytes in every lane.
struct Sums {
    __m512i lanes = _mm512_setzero_si512();
    // Every lane takes the four weights of its row times the same four activations.
    void add(Weights weights, const int8_t* activations) {
        int32_t four;
        memcpy(&four, activations, sizeof four);
        lanes = _mm512_dpbusd_epi32(lanes, weights, _mm512_set1_epi32(four));
    }
    void add_nibbles(Weights weights, const int8_t* activations) { add(weights, activations); }
    Vec floats() const { return __builtin_convertvector((IntVec)lanes, Vec); }
};

#else

constexpr const char* INSTRUCTIONS = "avx2";
constexpr int TOKENS_AT_ONCE = 4;
constexpr int VECTORS_AT_ONCE = 2;

inline Vec load_half(const uint16_t* from) {
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

typedef __m256i Weights;

inline Weights load_weights(const uint8_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
}
inline Weights low_nibbles(Weights w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
inline Weights high_nibbles(Weights w) { return low_nibbles(_mm256_srli_epi16(w, 4)); }

// As above without VNNI. Bytes are widened to 16 bits first: the instruction that multiplies bytes
// saturates at 2 * 255 * 127. So both kinds of processor get the same integers.
struct Sums {
    __m256i lanes = _mm256_setzero_si256(), pairs = _mm256_setzero_si256();
    void add(Weights weights, const int8_t* activations) {
        int32_t four;
        memcpy(&four, activations, sizeof four);
        const __m256i repeated = _mm256_set1_epi32(four);
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(repeated, 8), 8);
        const __m256i odd = _mm256_srai_epi16(repeated, 8);
        const __m256i even_weights = _mm256_and_si256(weights, _mm256_set1_epi16(0xff));
        const __m256i odd_weights = _mm256_srli_epi16(weights, 8);
        lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(even_weights, even));
        lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(odd_weights, odd));
    }
    // Nibbles are small enough for that instruction, and for 16-bit sums of a group of 32.
    void add_nibbles(Weights weights, const int8_t* activations) {
        int32_t four;
        memcpy(&four, activations, sizeof four);
        const __m256i products = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(four));
        pairs = _mm256_add_epi16(pairs, products);
    }
    Vec floats() const {
        const __m256i whole = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        return __builtin_convertvector((IntVec)_mm256_add_epi32(lanes, whole), Vec);
    }
};

#endif
