// The labels of a pixel or a vertex, as vectors.
#pragma once

#include "simd.h"

namespace SEGBATCH_ISA {

// NV vectors of W floats, in registers on the common path.
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
    SEGBATCH_INLINE void times(const Row& b) {
        for (int k = 0; k < NV; ++k) v[k] = v[k] * b.v[k];
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

// A row and four labels more.
template <class R>
struct Longer {
    static constexpr int kStride = R::kStride + 4;
    R head;
    Row<4, 1> tail;

    static SEGBATCH_INLINE Longer zero() { return {R::zero(), Row<4, 1>::zero()}; }
    static SEGBATCH_INLINE Longer load(const float* p) { return {R::load(p), Row<4, 1>::load(p + R::kStride)}; }
    SEGBATCH_INLINE void store(float* p) const {
        head.store(p);
        tail.store(p + R::kStride);
    }
    SEGBATCH_INLINE void add(float w, const float* p) {
        head.add(w, p);
        tail.add(w, p + R::kStride);
    }
    SEGBATCH_INLINE void add(float w, const Longer& b) {
        head.add(w, b.head);
        tail.add(w, b.tail);
    }
    SEGBATCH_INLINE void times(float w) {
        head.times(w);
        tail.times(w);
    }
    SEGBATCH_INLINE void times(const Longer& b) {
        head.times(b.head);
        tail.times(b.tail);
    }
    SEGBATCH_INLINE void add_to(float* p, float w) const {
        head.add_to(p, w);
        tail.add_to(p + R::kStride, w);
    }
    template <Fold F>
    SEGBATCH_INLINE Vec<4> fold_to_four() const {
        return fold<F>(head.template fold_to_four<F>(), tail.template fold_to_four<F>());
    }
    SEGBATCH_INLINE void exp_less(float x) {
        head.exp_less(x);
        tail.exp_less(x);
    }
};

#if defined(SEGBATCH_NEEDS_AVX512)
constexpr int kLongest = 16;  // vector of this instruction set
#elif defined(SEGBATCH_NEEDS_AVX2)
constexpr int kLongest = 8;
#else
constexpr int kLongest = 4;
#endif
constexpr int kUsual = kLongest < 8 ? kLongest : 8;

// The row of a stride: in the longest vectors that the processor has (compilers make poor code of longer ones), unless
// rows of that length would cross a cache line (of 24 labels every second one would).
template <int STRIDE>
struct RowOf;
template <> struct RowOf<4> { typedef Row<4, 1> Type; };
template <> struct RowOf<8> { typedef Row<kUsual, 8 / kUsual> Type; };
template <> struct RowOf<12> { typedef Longer<RowOf<8>::Type> Type; };
template <> struct RowOf<16> { typedef Row<kLongest, 16 / kLongest> Type; };
template <> struct RowOf<20> { typedef Longer<Row<kUsual, 16 / kUsual>> Type; };
template <> struct RowOf<24> { typedef Row<kUsual, 24 / kUsual> Type; };
template <> struct RowOf<32> { typedef Row<kLongest, 32 / kLongest> Type; };

// Calls f with an instance of the row of that stride.
template <class F>
SEGBATCH_INLINE void with_row(int stride, const F& f) {
    switch (stride) {
        case 4: f(RowOf<4>::Type()); break;
        case 8: f(RowOf<8>::Type()); break;
        case 12: f(RowOf<12>::Type()); break;
        case 16: f(RowOf<16>::Type()); break;
        case 20: f(RowOf<20>::Type()); break;
        case 24: f(RowOf<24>::Type()); break;
        default: f(RowOf<32>::Type());
    }
}

}  // namespace SEGBATCH_ISA
