// Short vectors of floats, the same code for every instruction set: the compiler is told the target of the file.
// Without GNU vector extensions (MSVC) the fallback is plain loops that a compiler may vectorise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(_MSC_VER) && !defined(__clang__)
#define SEGBATCH_INLINE __forceinline
#define SEGBATCH_NOINLINE __declspec(noinline)
#define SEGBATCH_LAMBDA_INLINE
#define SEGBATCH_PREFETCH(address) ((void)(address))
#define SEGBATCH_PREFETCH_ONCE(address) ((void)(address))
#else
#define SEGBATCH_INLINE inline __attribute__((always_inline))
#define SEGBATCH_NOINLINE __attribute__((noinline))
#define SEGBATCH_LAMBDA_INLINE __attribute__((always_inline))
#define SEGBATCH_PREFETCH(address) __builtin_prefetch(address)
#define SEGBATCH_PREFETCH_ONCE(address) __builtin_prefetch(address, 0, 0)  // what is read once need not stay
#endif

namespace SEGBATCH_ISA {

#if defined(__GNUC__) || defined(__clang__)

template <int W>
struct Types;
template <>
struct Types<4> {
    typedef float F __attribute__((vector_size(16)));
    typedef std::int32_t I __attribute__((vector_size(16)));
};
template <>
struct Types<8> {
    typedef float F __attribute__((vector_size(32)));
    typedef std::int32_t I __attribute__((vector_size(32)));
};
template <>
struct Types<16> {
    typedef float F __attribute__((vector_size(64)));
    typedef std::int32_t I __attribute__((vector_size(64)));
};

template <int W>
struct Vec {
    typedef typename Types<W>::F F;
    typedef typename Types<W>::I I;
    static constexpr int kWidth = W;
    F v;

    static SEGBATCH_INLINE Vec all(float x) { return {x - F{}}; }
    static SEGBATCH_INLINE Vec load(const float* p) {
        Vec r;
        std::memcpy(&r.v, p, sizeof(F));
        return r;
    }
    SEGBATCH_INLINE void store(float* p) const { std::memcpy(p, &v, sizeof(F)); }
    friend SEGBATCH_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
    friend SEGBATCH_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
    friend SEGBATCH_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
    friend SEGBATCH_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
    friend SEGBATCH_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
    // Every lane takes the value of the one whose number differs from its own in the bit X.
    template <int X>
    SEGBATCH_INLINE Vec swapped() const {
        return swapped<X>(std::make_integer_sequence<int, W>());
    }
    template <int X, int... LANE>
    SEGBATCH_INLINE Vec swapped(std::integer_sequence<int, LANE...>) const {
        return {__builtin_shufflevector(v, v, (LANE ^ X)...)};
    }
    // `this` where a >= b, else 0.
    SEGBATCH_INLINE Vec where_ge(Vec a, Vec b) const {
        const I keep = a.v >= b.v;
        return {(F)((I)v & keep)};
    }
    // 2^n where the last bits of each number are those of n + 127, n in -126 … 127.
    SEGBATCH_INLINE Vec exp2_of_last_bits() const { return {(F)((I)v << 23)}; }
    // Of a normal number above 0: x = mantissa * 2^exponent, the mantissa in [0.5, 1).
    SEGBATCH_INLINE Vec exponent() const { return {__builtin_convertvector((((I)v >> 23) & 255) - 126, F)}; }
    SEGBATCH_INLINE Vec mantissa() const { return {(F)(((I)v & 0x007FFFFF) | 0x3F000000)}; }
    // The lower (0) or the upper (1) half.
    SEGBATCH_INLINE Vec<W / 2> half(int which) const {
        Vec<W / 2> h;
        std::memcpy(&h.v, reinterpret_cast<const char*>(&v) + which * sizeof(h.v), sizeof(h.v));
        return h;
    }
    SEGBATCH_INLINE float highest() const {
        float r = v[0];
        if constexpr (W == 16) {
            return max(half(0), half(1)).highest();
        } else if constexpr (W == 8) {
            typedef typename Types<4>::F F4;
            F4 a = __builtin_shufflevector(v, v, 0, 1, 2, 3), b = __builtin_shufflevector(v, v, 4, 5, 6, 7);
            return Vec<4>{a > b ? a : b}.highest();
        } else {
            F s = __builtin_shufflevector(v, v, 2, 3, 0, 1);
            s = v > s ? v : s;
            const F t = __builtin_shufflevector(s, s, 1, 0, 3, 2);
            r = s[0] > t[0] ? s[0] : t[0];
        }
        return r;
    }
    SEGBATCH_INLINE float total() const {
        if constexpr (W == 16) {
            return (half(0) + half(1)).total();
        } else if constexpr (W == 8) {
            typedef typename Types<4>::F F4;
            const F4 a = __builtin_shufflevector(v, v, 0, 1, 2, 3), b = __builtin_shufflevector(v, v, 4, 5, 6, 7);
            return Vec<4>{a + b}.total();
        } else {
            const F s = v + __builtin_shufflevector(v, v, 2, 3, 0, 1);
            const F t = s + __builtin_shufflevector(s, s, 1, 0, 3, 2);
            return t[0];
        }
    }
};

// Lanes of two vectors: the first's are 0 to 3, the second's 4 to 7.
template <int... LANE>
SEGBATCH_INLINE Vec<4> pick(Vec<4> a, Vec<4> b) {
    return {__builtin_shufflevector(a.v, b.v, LANE...)};
}

#else

template <int W>
struct Vec {
    static constexpr int kWidth = W;
    float v[W];

    static SEGBATCH_INLINE Vec all(float x) {
        Vec r;
        for (int i = 0; i < W; ++i) r.v[i] = x;
        return r;
    }
    static SEGBATCH_INLINE Vec load(const float* p) {
        Vec r;
        std::memcpy(r.v, p, sizeof(r.v));
        return r;
    }
    SEGBATCH_INLINE void store(float* p) const { std::memcpy(p, v, sizeof(v)); }
#define SEGBATCH_LANES(expression)                 \
    Vec r;                                         \
    for (int i = 0; i < W; ++i) r.v[i] = expression; \
    return r
    friend SEGBATCH_INLINE Vec operator+(Vec a, Vec b) { SEGBATCH_LANES(a.v[i] + b.v[i]); }
    friend SEGBATCH_INLINE Vec operator-(Vec a, Vec b) { SEGBATCH_LANES(a.v[i] - b.v[i]); }
    friend SEGBATCH_INLINE Vec operator*(Vec a, Vec b) { SEGBATCH_LANES(a.v[i] * b.v[i]); }
    friend SEGBATCH_INLINE Vec operator/(Vec a, Vec b) { SEGBATCH_LANES(a.v[i] / b.v[i]); }
    friend SEGBATCH_INLINE Vec max(Vec a, Vec b) { SEGBATCH_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
    template <int X>
    SEGBATCH_INLINE Vec swapped() const {
        SEGBATCH_LANES(v[i ^ X]);
    }
    SEGBATCH_INLINE Vec where_ge(Vec a, Vec b) const { SEGBATCH_LANES(a.v[i] >= b.v[i] ? v[i] : 0.0f); }
    SEGBATCH_INLINE Vec exp2_of_last_bits() const {
        Vec r;
        for (int i = 0; i < W; ++i) {
            std::uint32_t bits;
            std::memcpy(&bits, &v[i], sizeof(bits));
            bits <<= 23;
            std::memcpy(&r.v[i], &bits, sizeof(bits));
        }
        return r;
    }
    SEGBATCH_INLINE Vec exponent() const {
        Vec r;
        for (int i = 0; i < W; ++i) {
            std::int32_t bits;
            std::memcpy(&bits, &v[i], sizeof(bits));
            r.v[i] = static_cast<float>(((bits >> 23) & 255) - 126);
        }
        return r;
    }
    SEGBATCH_INLINE Vec mantissa() const {
        Vec r;
        for (int i = 0; i < W; ++i) {
            std::int32_t bits;
            std::memcpy(&bits, &v[i], sizeof(bits));
            bits = (bits & 0x007FFFFF) | 0x3F000000;
            std::memcpy(&r.v[i], &bits, sizeof(bits));
        }
        return r;
    }
#undef SEGBATCH_LANES
    SEGBATCH_INLINE Vec<W / 2> half(int which) const {
        Vec<W / 2> h;
        std::memcpy(h.v, v + which * (W / 2), sizeof(h.v));
        return h;
    }
    SEGBATCH_INLINE float highest() const {
        float r = v[0];
        for (int i = 1; i < W; ++i) r = v[i] > r ? v[i] : r;
        return r;
    }
    SEGBATCH_INLINE float total() const {
        float s[W];
        std::memcpy(s, v, sizeof(s));
        for (int half = W / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) s[i] = s[i] + s[i + half];
        }
        return s[0];
    }
};

template <int... LANE>
SEGBATCH_INLINE Vec<4> pick(Vec<4> a, Vec<4> b) {
    return {{(LANE < 4 ? a.v[LANE & 3] : b.v[LANE & 3])...}};
}

#endif

enum class Fold { kHighest, kTotal };  // what is wanted of the lanes together

template <Fold F, int W>
SEGBATCH_INLINE Vec<W> fold(Vec<W> a, Vec<W> b) {
    if constexpr (F == Fold::kHighest) {
        return max(a, b);
    } else {
        return a + b;
    }
}

template <Fold F, int W>
SEGBATCH_INLINE Vec<4> fold_to_four(Vec<W> a) {
    if constexpr (W == 4) {
        return a;
    } else {
        return fold_to_four<F>(fold<F>(a.half(0), a.half(1)));
    }
}

// What is wanted of each of four vectors: half the steps that they take one by one.
template <Fold F>
SEGBATCH_INLINE Vec<4> fold_each(Vec<4> a, Vec<4> b, Vec<4> c, Vec<4> d) {
    const Vec<4> ab = fold<F>(pick<0, 4, 1, 5>(a, b), pick<2, 6, 3, 7>(a, b));
    const Vec<4> cd = fold<F>(pick<0, 4, 1, 5>(c, d), pick<2, 6, 3, 7>(c, d));
    return fold<F>(pick<0, 1, 4, 5>(ab, cd), pick<2, 3, 6, 7>(ab, cd));
}

// e^x for x <= 88, relative error below 2e-7; exactly 0 below -60, so that no denormal number follows from it.
template <int W>
SEGBATCH_INLINE Vec<W> exp(Vec<W> x) {
    typedef Vec<W> V;
    const V lowest = V::all(-60.0f);
    const V y = max(x, lowest);
    // The sum is so large that it is rounded to a whole number; its last bits are those of n + 127.
    const V magic = V::all(12582912.0f + 127.0f);
    const V shifted = y * V::all(1.44269504f) + magic;
    const V n = shifted - magic;
    const V r = (y - n * V::all(0.693359375f)) + n * V::all(2.12194440e-4f);
    V p = V::all(1.0f / 720);
    p = p * r + V::all(1.0f / 120);
    p = p * r + V::all(1.0f / 24);
    p = p * r + V::all(1.0f / 6);
    p = p * r + V::all(0.5f);
    p = p * r + V::all(1.0f);
    p = p * r + V::all(1.0f);
    return (p * shifted.exp2_of_last_bits()).where_ge(x, lowest);
}

// Softmax within each group of G lanes, 4 or 8.
template <int G, int W>
SEGBATCH_INLINE Vec<W> softmax_in_groups(Vec<W> x) {
    Vec<W> most = x;
    if constexpr (G == 8) most = max(most, most.template swapped<4>());
    most = max(most, most.template swapped<2>());
    most = max(most, most.template swapped<1>());
    const Vec<W> e = exp(x - most);
    Vec<W> sum = e;
    if constexpr (G == 8) sum = sum + sum.template swapped<4>();
    sum = sum + sum.template swapped<2>();
    sum = sum + sum.template swapped<1>();
    return e / sum;
}

}  // namespace SEGBATCH_ISA
