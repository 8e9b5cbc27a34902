// The labels of a pixel or a vertex, as vectors.
#pragma once

#include "simd.h"

namespace SEGBATCH_ISA {

// A block of labels: NV vectors of W floats. Rows of a term's values are as long.
template <int W, int NV>
struct Block {
    typedef Vec<W> V;
    static constexpr int kStride = W * NV;
    V v[NV];

    static SEGBATCH_INLINE Block zero() {
        Block b;
        for (int k = 0; k < NV; ++k) b.v[k] = V::all(0.0f);
        return b;
    }
    static SEGBATCH_INLINE Block load(const float* p) {
        Block b;
        for (int k = 0; k < NV; ++k) b.v[k] = V::load(p + k * W);
        return b;
    }
    SEGBATCH_INLINE void store(float* p) const {
        for (int k = 0; k < NV; ++k) v[k].store(p + k * W);
    }
    SEGBATCH_INLINE void add(V w, const Block& b) {
        for (int k = 0; k < NV; ++k) v[k] = v[k] + w * b.v[k];
    }
    SEGBATCH_INLINE Block times(V w) const {
        Block b;
        for (int k = 0; k < NV; ++k) b.v[k] = v[k] * w;
        return b;
    }
};

// A row in registers on the common path: as `Block`, in vectors twice as long where the processor has them and no row
// of that length crosses a cache line (of 24 labels every second one would).
template <int W, int NV>
struct Row {
    typedef Vec<W> V;
    static constexpr int kStride = W * NV;
    V v[NV];

    static SEGBATCH_INLINE Row zero() {
        Row b;
        for (int k = 0; k < NV; ++k) b.v[k] = V::all(0.0f);
        return b;
    }
    static SEGBATCH_INLINE Row load(const float* p) {
        Row b;
        for (int k = 0; k < NV; ++k) b.v[k] = V::load(p + k * W);
        return b;
    }
    SEGBATCH_INLINE void store(float* p) const {
        for (int k = 0; k < NV; ++k) v[k].store(p + k * W);
    }
    // += w * the row at p
    SEGBATCH_INLINE void add(float w, const float* p) {
        for (int k = 0; k < NV; ++k) v[k] = v[k] + V::all(w) * V::load(p + k * W);
    }
    SEGBATCH_INLINE void add(float w, const Row& b) {
        for (int k = 0; k < NV; ++k) v[k] = v[k] + V::all(w) * b.v[k];
    }
    SEGBATCH_INLINE void times(float w) {
        for (int k = 0; k < NV; ++k) v[k] = v[k] * V::all(w);
    }
    // The row at p += w * this
    SEGBATCH_INLINE void add_to(float* p, float w) const {
        for (int k = 0; k < NV; ++k) (V::load(p + k * W) + V::all(w) * v[k]).store(p + k * W);
    }
    template <Fold F>
    SEGBATCH_INLINE Vec<4> fold_to_four() const {
        V all = v[0];
        for (int k = 1; k < NV; ++k) all = fold<F>(all, v[k]);
        return SEGBATCH_ISA::fold_to_four<F>(all);
    }
    // e^(this - x)
    SEGBATCH_INLINE void exp_less(float x) {
        for (int k = 0; k < NV; ++k) v[k] = exp(v[k] - V::all(x));
    }
};

#if defined(SEGBATCH_NEEDS_AVX512)
typedef Row<16, 1> Row16;
typedef Row<16, 2> Row32;
constexpr int kLongest = 16;  // vector of this instruction set
#else
#if defined(SEGBATCH_NEEDS_AVX2)
constexpr int kLongest = 8;
#else
constexpr int kLongest = 4;
#endif
typedef Row<8, 2> Row16;
typedef Row<8, 4> Row32;
#endif
template <int STRIDE>
struct RowOf;
template <> struct RowOf<4> { typedef Row<4, 1> Type; };
template <> struct RowOf<8> { typedef Row<8, 1> Type; };
template <> struct RowOf<16> { typedef Row16 Type; };
template <> struct RowOf<24> { typedef Row<8, 3> Type; };
template <> struct RowOf<32> { typedef Row32 Type; };

}  // namespace SEGBATCH_ISA
