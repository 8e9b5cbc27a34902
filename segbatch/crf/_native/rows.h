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

// A row in registers on the common path: as `Block`, where the processor has them in vectors twice as long.
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
    SEGBATCH_INLINE void softmax() {
        V most = v[0];
        for (int k = 1; k < NV; ++k) most = max(most, v[k]);
        const V high = V::all(most.highest());
        for (int k = 0; k < NV; ++k) v[k] = exp(v[k] - high);
        V sum = v[0];
        for (int k = 1; k < NV; ++k) sum = sum + v[k];
        times(1.0f / sum.total());
    }
};

#if defined(SEGBATCH_NEEDS_AVX512)
// 24 labels: a long vector and a short one.
template <>
struct Row<8, 3> {
    static constexpr int kStride = 24;
    Row<16, 1> a;
    Row<8, 1> b;

    static SEGBATCH_INLINE Row zero() { return {Row<16, 1>::zero(), Row<8, 1>::zero()}; }
    static SEGBATCH_INLINE Row load(const float* p) {
        return {Row<16, 1>::load(p), Row<8, 1>::load(p + 16)};
    }
    SEGBATCH_INLINE void store(float* p) const {
        a.store(p);
        b.store(p + 16);
    }
    SEGBATCH_INLINE void add(float w, const float* p) {
        a.add(w, p);
        b.add(w, p + 16);
    }
    SEGBATCH_INLINE void add(float w, const Row& r) {
        a.add(w, r.a);
        b.add(w, r.b);
    }
    SEGBATCH_INLINE void times(float w) {
        a.times(w);
        b.times(w);
    }
    SEGBATCH_INLINE void add_to(float* p, float w) const {
        a.add_to(p, w);
        b.add_to(p + 16, w);
    }
    SEGBATCH_INLINE void softmax() {
        const float high = max(max(a.v[0].half(0), a.v[0].half(1)), b.v[0]).highest();
        a.v[0] = exp(a.v[0] - Vec<16>::all(high));
        b.v[0] = exp(b.v[0] - Vec<8>::all(high));
        times(1.0f / (a.v[0].half(0) + a.v[0].half(1) + b.v[0]).total());
    }
};
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
