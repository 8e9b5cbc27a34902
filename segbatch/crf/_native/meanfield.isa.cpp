// Mean field: one pass over the pixels between two blurs. Compiled once for each instruction set.
//
// A pass slices the blurred values of the last iteration, applies the compatibilities, takes the softmax and splats
// the result for the next one, a tile of pixels at a time: full marginals are only written where they are wanted.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"
#include "simd.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

constexpr int kTile = 8;

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
    static SEGBATCH_INLINE Block load(const std::uint16_t* p) {
        Block b;
        for (int k = 0; k < NV; ++k) b.v[k] = V::load16(p + k * W);
        return b;
    }
    SEGBATCH_INLINE void store(float* p) const {
        for (int k = 0; k < NV; ++k) v[k].store(p + k * W);
    }
    SEGBATCH_INLINE void store(std::uint16_t* p) const {
        for (int k = 0; k < NV; ++k) v[k].store16(p + k * W);
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

template <class B>
SEGBATCH_INLINE void prefetch_row(const void* p) {
    SEGBATCH_PREFETCH(p);
    if (B::kStride > 16) SEGBATCH_PREFETCH(static_cast<const char*>(p) + 64);
}

template <class B, class T>
SEGBATCH_INLINE B gather(const T* values, const std::uint32_t* index, const float* weight, int corners) {
    B sum = B::zero();
    for (int r = 0; r < corners; ++r) {
        sum.add(B::V::all(weight[r]), B::load(values + static_cast<std::size_t>(index[r]) * B::kStride));
    }
    return sum;
}

template <class B>
SEGBATCH_INLINE void scatter(const B& q, float* values, const std::uint32_t* index, const float* weight, int corners) {
    for (int r = 0; r < corners; ++r) {
        float* row = values + static_cast<std::size_t>(index[r]) * B::kStride;
        B sum = B::load(row);
        sum.add(B::V::all(weight[r]), q);
        sum.store(row);
    }
}

// The number of corners as a constant where it is a usual one.
template <class F>
SEGBATCH_INLINE void with_corners(int corners, const F& f) {
    switch (corners) {
        case 3: f(3); break;
        case 6: f(6); break;
        default: f(corners);
    }
}

template <class B>
void apply_matrix(const Pass& p, const Term& term, const float* message, float* logits) {
    typedef typename B::V V;
    for (int from = 0; from < p.labels; ++from) {
        const V m = V::all(message[from]);
        const float* column = term.energies + static_cast<std::size_t>(from) * p.padded;
        for (int block = 0; block < p.blocks; ++block) {
            B sum = B::load(logits + block * B::kStride);
            const B c = B::load(column + block * B::kStride);
            for (int k = 0; k < static_cast<int>(sizeof(sum.v) / sizeof(sum.v[0])); ++k) {
                sum.v[k] = sum.v[k] - c.v[k] * m;
            }
            sum.store(logits + block * B::kStride);
        }
    }
}

// logits[pixel] -= compatibility * (filtered marginals), for `count` pixels from `first`.
template <class B, class T>
SEGBATCH_INLINE void slice_term(const Pass& p, const Term& term, const T* values, const float* weights, float scale,
                                std::int64_t first, int count, float* logits) {
    typedef typename B::V V;
    const Lattice& lattice = *term.lattice;
    const std::uint32_t* indices = lattice.index.template as<std::uint32_t>();
    const std::size_t plane = static_cast<std::size_t>(lattice.vertices) * B::kStride;
    with_corners(lattice.dimensions + 1, [&](int corners) SEGBATCH_LAMBDA_INLINE {
        const std::uint32_t* index = indices + first * corners;
        const float* weight = weights + first * corners;
        const int ahead = first + 2 * kTile <= p.points ? kTile * corners : 0;
        for (int t = 0; t < count; ++t, index += corners, weight += corners) {
            float* row = logits + static_cast<std::size_t>(t) * p.padded;
            const float s = lattice.after == nullptr ? scale : scale * lattice.after[first + t];
            if (p.blocks == 1) {
                for (int r = 0; r < corners; ++r) {
                    prefetch_row<B>(values + static_cast<std::size_t>(index[ahead + r]) * B::kStride);
                }
            }
            if (term.compat == Compat::kPotts) {
                for (int block = 0; block < p.blocks; ++block) {
                    B sum = B::load(row + block * B::kStride);
                    sum.add(V::all(s * term.potts), gather<B>(values + block * plane, index, weight, corners));
                    sum.store(row + block * B::kStride);
                }
            } else if (term.compat == Compat::kDiagonal) {
                for (int block = 0; block < p.blocks; ++block) {
                    B sum = B::load(row + block * B::kStride);
                    const B c = B::load(term.energies + block * B::kStride);
                    const B m = gather<B>(values + block * plane, index, weight, corners).times(V::all(-s));
                    for (int k = 0; k < static_cast<int>(sizeof(m.v) / sizeof(m.v[0])); ++k) {
                        sum.v[k] = sum.v[k] + c.v[k] * m.v[k];
                    }
                    sum.store(row + block * B::kStride);
                }
            } else {
                float* message = logits + static_cast<std::size_t>(kTile) * p.padded;
                for (int block = 0; block < p.blocks; ++block) {
                    gather<B>(values + block * plane, index, weight, corners)
                        .times(V::all(s))
                        .store(message + block * B::kStride);
                }
                apply_matrix<B>(p, term, message, row);
            }
        }
    });
}

template <class B>
SEGBATCH_INLINE void softmax(const Pass& p, float* row) {
    typedef typename B::V V;
    V most = V::load(row);
    for (int k = V::kWidth; k < p.padded; k += V::kWidth) most = max(most, V::load(row + k));
    const V high = V::all(most.highest());
    V sum = V::all(0.0f);
    for (int block = 0; block < p.blocks; ++block) {
        B b = B::load(row + block * B::kStride);
        for (int k = 0; k < static_cast<int>(sizeof(b.v) / sizeof(b.v[0])); ++k) {
            b.v[k] = exp(b.v[k] - high);
            sum = sum + b.v[k];
        }
        b.store(row + block * B::kStride);
    }
    const V inverse = V::all(1.0f / sum.total());
    for (int block = 0; block < p.blocks; ++block) {
        B::load(row + block * B::kStride).times(inverse).store(row + block * B::kStride);
    }
}

template <class B>
SEGBATCH_INLINE void splat_term(const Pass& p, const Term& term, std::int64_t first, int count, const float* q) {
    typedef typename B::V V;
    const Lattice& lattice = *term.lattice;
    const std::uint32_t* indices = lattice.index.template as<std::uint32_t>();
    const float* weights = lattice.weight.template as<float>();
    const std::size_t plane = static_cast<std::size_t>(lattice.vertices) * B::kStride;
    with_corners(lattice.dimensions + 1, [&](int corners) SEGBATCH_LAMBDA_INLINE {
        const std::uint32_t* index = indices + first * corners;
        const float* weight = weights + first * corners;
        const int ahead = first + 2 * kTile <= p.points ? kTile * corners : 0;
        for (int t = 0; t < count; ++t, index += corners, weight += corners) {
            if (p.blocks == 1) {
                for (int r = 0; r < corners; ++r) {
                    prefetch_row<B>(term.values + static_cast<std::size_t>(index[ahead + r]) * B::kStride);
                }
            }
            const V s = V::all(lattice.before == nullptr ? 1.0f : lattice.before[first + t]);
            for (int block = 0; block < p.blocks; ++block) {
                const B b = B::load(q + static_cast<std::size_t>(t) * p.padded + block * B::kStride).times(s);
                scatter(b, term.values + block * plane, index, weight, corners);
            }
        }
    });
}

void emit(const Pass& p, std::int64_t first, int count, const float* q) {
    if (p.output == Output::kRows) {
        std::memcpy(p.rows + first * p.padded, q, sizeof(float) * static_cast<std::size_t>(count) * p.padded);
    } else if (p.output == Output::kPlanes) {
        for (int l = 0; l < p.labels; ++l) {
            float* out = p.planes + static_cast<std::int64_t>(l) * p.points + first;
            for (int t = 0; t < count; ++t) out[t] = q[static_cast<std::size_t>(t) * p.padded + l];
        }
    } else if (p.output == Output::kWinner) {
        for (int t = 0; t < count; ++t) {
            const float* row = q + static_cast<std::size_t>(t) * p.padded;
            int best = 0;
            for (int l = 1; l < p.labels; ++l) best = row[l] > row[best] ? l : best;
            p.winner[first + t] = best;
            p.highest[first + t] = row[best];
        }
    }
}

double divergence_of(const Pass& p, const float* q, const float* logits) {
    double sum = 0.0;
    for (int l = 0; l < p.labels; ++l) {
        if (q[l] > 0.0f) sum += q[l] * (__builtin_log(static_cast<double>(q[l])) - logits[l]);
    }
    return sum;
}

template <class B>
void pass_blocks(const Pass& p, float* tile) {
    double divergence = 0.0;
    for (std::int64_t first = 0; first < p.points; first += kTile) {
        const int count = p.points - first < kTile ? static_cast<int>(p.points - first) : kTile;
        const std::size_t length = static_cast<std::size_t>(count) * p.padded;
        if (p.source == Source::kMarginals) {
            std::memcpy(tile, p.marginals + first * p.padded, length * sizeof(float));
        } else {
            std::memcpy(tile, p.unary + first * p.padded, length * sizeof(float));
            for (int k = 0; k < p.term_count && p.source == Source::kTerms; ++k) {
                const Term& term = p.terms[k];
                const Lattice& lattice = *term.lattice;
                if (lattice.has_masses) {
                    slice_term<B>(p, term, term.shares, lattice.slice_weight.template as<float>(), lattice.scale, first,
                                  count, tile);
                } else {
                    slice_term<B>(p, term, term.blurred, lattice.weight.template as<float>(), lattice.scale, first,
                                  count, tile);
                }
            }
            if (p.divergence != nullptr) {
                for (int t = 0; t < count; ++t) {
                    divergence += divergence_of(p, p.marginals + (first + t) * p.padded,
                                                tile + static_cast<std::size_t>(t) * p.padded);
                }
            }
            for (int t = 0; t < count; ++t) softmax<B>(p, tile + static_cast<std::size_t>(t) * p.padded);
        }
        if (p.splat) {
            for (int k = 0; k < p.term_count; ++k) splat_term<B>(p, p.terms[k], first, count, tile);
        }
        if (p.output != Output::kNone) emit(p, first, count, tile);
    }
    if (p.divergence != nullptr) *p.divergence = divergence;
}

// Blur along an axis, in place through its chains: new = old + (previous + next) / 2.
template <class B>
void blur_axis(const Lattice& lattice, int axis, float* values) {
    typedef typename B::V V;
    const std::uint32_t* chain = lattice.chains.as<std::uint32_t>() + lattice.chain_begin[axis];
    const V half = V::all(0.5f);
    const auto row = [&](std::int64_t p) SEGBATCH_LAMBDA_INLINE {
        return values + static_cast<std::size_t>(chain[p] & ~kChainEnd) * B::kStride;
    };
    B previous = B::zero(), current = B::load(row(0));
    for (std::int64_t p = 0; p < lattice.chain_length[axis]; ++p) {
        prefetch_row<B>(row(p + kLookAhead / 2));
        const std::int32_t go = (chain[p] & kChainEnd) != 0 ? 0 : -1;
        const B ahead = B::load(row(p + 1));
        B out;
        for (int k = 0; k < static_cast<int>(sizeof(out.v) / sizeof(out.v[0])); ++k) {
            out.v[k] = current.v[k] + half * (previous.v[k] + ahead.v[k].masked(go));
            previous.v[k] = current.v[k].masked(go);
        }
        out.store(row(p));
        current = ahead;
    }
}

// The same on shares of the mass.
template <class B>
void blur_axis(const Lattice& lattice, int axis, std::uint16_t* shares) {
    typedef typename B::V V;
    const std::int64_t begin = lattice.chain_begin[axis];
    const std::uint32_t* chain = lattice.chains.as<std::uint32_t>() + begin;
    const float* mass = lattice.chain_mass.as<float>() + begin;
    const float* inverse = lattice.chain_inverse_mass.as<float>() + begin;
    const V half = V::all(0.5f);
    const auto row = [&](std::int64_t p) SEGBATCH_LAMBDA_INLINE {
        return shares + static_cast<std::size_t>(chain[p] & ~kChainEnd) * B::kStride;
    };
    B previous = B::zero(), current = B::load(row(0)).times(V::all(mass[0]));
    for (std::int64_t p = 0; p < lattice.chain_length[axis]; ++p) {
        SEGBATCH_PREFETCH(row(p + kLookAhead / 2));
        const std::int32_t go = (chain[p] & kChainEnd) != 0 ? 0 : -1;
        const B ahead = B::load(row(p + 1)).times(V::all(mass[p + 1]));
        const V scale = V::all(inverse[p]);
        B out;
        for (int k = 0; k < static_cast<int>(sizeof(out.v) / sizeof(out.v[0])); ++k) {
            out.v[k] = (current.v[k] + half * (previous.v[k] + ahead.v[k].masked(go))) * scale;
            previous.v[k] = current.v[k].masked(go);
        }
        out.store(row(p));
        current = ahead;
    }
}

template <class B>
void blur_blocks(const Term& term, int blocks) {
    const Lattice& lattice = *term.lattice;
    const std::int64_t m = lattice.vertices;
    for (int block = 0; block < blocks; ++block) {
        const std::size_t plane = static_cast<std::size_t>(block) * m * B::kStride;
        float* values = term.values + plane;
        if (!lattice.has_masses) {
            for (int axis = 0; axis <= lattice.dimensions; ++axis) blur_axis<B>(lattice, axis, values);
            continue;
        }
        std::uint16_t* shares = term.shares + plane;
        const float* inverse = lattice.inverse_splat_mass.as<float>();
        for (std::int64_t v = 0; v < m; ++v) {
            const B b = B::load(values + v * B::kStride);
            B::zero().store(values + v * B::kStride);
            b.times(B::V::all(inverse[v])).store(shares + v * B::kStride);
        }
        for (int axis = 0; axis <= lattice.dimensions; ++axis) blur_axis<B>(lattice, axis, shares);
    }
}

}  // namespace

void pass(const Pass& p) {
    alignas(64) float small[(kTile + 1) * 32];
    Buffer buffer;
    float* tile = p.padded <= 32 ? small : buffer.reserve<float>(static_cast<std::size_t>(kTile + 1) * p.padded);
    switch (p.padded / p.blocks) {
        case 4: pass_blocks<Block<4, 1>>(p, tile); break;
        case 8: pass_blocks<Block<8, 1>>(p, tile); break;
        case 16: pass_blocks<Block<8, 2>>(p, tile); break;
        case 24: pass_blocks<Block<8, 3>>(p, tile); break;
        default: pass_blocks<Block<8, 4>>(p, tile);
    }
}

void blur(const Term& term, int padded, int blocks) {
    switch (padded / blocks) {
        case 4: blur_blocks<Block<4, 1>>(term, blocks); break;
        case 8: blur_blocks<Block<8, 1>>(term, blocks); break;
        case 16: blur_blocks<Block<8, 2>>(term, blocks); break;
        case 24: blur_blocks<Block<8, 3>>(term, blocks); break;
        default: blur_blocks<Block<8, 4>>(term, blocks);
    }
}

}  // namespace SEGBATCH_ISA
