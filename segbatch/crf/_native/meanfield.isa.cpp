// Mean field: one pass over the pixels between two blurs. Compiled once for each instruction set.
//
// A pass slices the blurred values of the last iteration, applies the compatibilities, takes the softmax and splats
// the result for the next one, a tile of pixels at a time: full marginals are only written where they are wanted.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"
#include "rows.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

constexpr int kTile = 16;
constexpr int kStream = 64;  // pixels before it is read that what is read in order is asked for
// Rows of values that take less are in the cache, where asking for them costs more than it saves.
constexpr std::size_t kNear = std::size_t{2} << 20;

// Every cache line that a row touches: its first and its last float's.
template <class R>
SEGBATCH_INLINE void prefetch_row(const float* p) {
    SEGBATCH_PREFETCH(p);
    if (R::kStride > 16 || 16 % R::kStride != 0) SEGBATCH_PREFETCH(p + R::kStride - 1);
}

template <class R>
SEGBATCH_INLINE R gather(const float* values, const std::uint32_t* index, const float* weight, int corners) {
    R sum = R::zero();
    for (int r = 0; r < corners; ++r) sum.add(weight[r], values + static_cast<std::size_t>(index[r]) * R::kStride);
    return sum;
}

template <class R>
SEGBATCH_INLINE void scatter(const R& q, float* values, const std::uint32_t* index, const float* weight, int corners) {
    for (int r = 0; r < corners; ++r) q.add_to(values + static_cast<std::size_t>(index[r]) * R::kStride, weight[r]);
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

template <class R>
void apply_matrix(const Pass& p, const Term& term, const float* message, float* logits) {
    for (int from = 0; from < p.labels; ++from) {
        const float* column = term.energies + static_cast<std::size_t>(from) * p.padded;
        for (int block = 0; block < p.blocks; ++block) {
            R sum = R::load(logits + block * R::kStride);
            sum.add(-message[from], column + block * R::kStride);
            sum.store(logits + block * R::kStride);
        }
    }
}

// logits[pixel] -= compatibility * (filtered marginals), for `count` pixels from `first`.
template <class R>
SEGBATCH_INLINE void slice_term(const Pass& p, const Term& term, std::int64_t first, int count, float* logits) {
    const Lattice& lattice = *term.lattice;
    const std::uint32_t* indices = lattice.index.template as<std::uint32_t>();
    const float* weights = lattice.weight.template as<float>();
    const float* values = term.blurred;
    const std::size_t plane = static_cast<std::size_t>(lattice.vertices) * R::kStride;
    with_corners(lattice.dimensions + 1, [&](int corners) SEGBATCH_LAMBDA_INLINE {
        const std::uint32_t* index = indices + first * corners;
        const float* weight = weights + first * corners;
        const int ahead = first + 2 * kTile <= p.points ? kTile * corners : 0;
        for (int t = 0; t < count; ++t, index += corners, weight += corners) {
            float* row = logits + static_cast<std::size_t>(t) * p.padded;
            const float s = lattice.after == nullptr ? lattice.scale : lattice.scale * lattice.after[first + t];
            if (p.blocks == 1) {
                for (int r = 0; r < corners; ++r) {
                    prefetch_row<R>(values + static_cast<std::size_t>(index[ahead + r]) * R::kStride);
                }
            }
            if (term.compat == Compat::kPotts) {
                for (int block = 0; block < p.blocks; ++block) {
                    R sum = R::load(row + block * R::kStride);
                    sum.add(s * term.potts, gather<R>(values + block * plane, index, weight, corners));
                    sum.store(row + block * R::kStride);
                }
            } else if (term.compat == Compat::kDiagonal) {
                for (int block = 0; block < p.blocks; ++block) {
                    R sum = R::load(row + block * R::kStride);
                    R energy = R::load(term.energies + block * R::kStride);
                    energy.times(gather<R>(values + block * plane, index, weight, corners));
                    sum.add(-s, energy);
                    sum.store(row + block * R::kStride);
                }
            } else {
                float* message = logits + static_cast<std::size_t>(kTile) * p.padded;
                for (int block = 0; block < p.blocks; ++block) {
                    R m = gather<R>(values + block * plane, index, weight, corners);
                    m.times(s);
                    m.store(message + block * R::kStride);
                }
                apply_matrix<R>(p, term, message, row);
            }
        }
    });
}

template <class R>
SEGBATCH_INLINE void softmax(const Pass& p, float* row) {
    Vec<4> most = R::load(row).template fold_to_four<Fold::kHighest>(), sum = Vec<4>::all(0.0f);
    for (int block = 1; block < p.blocks; ++block) {
        most = max(most, R::load(row + block * R::kStride).template fold_to_four<Fold::kHighest>());
    }
    const float highest = most.highest();
    for (int block = 0; block < p.blocks; ++block) {
        R e = R::load(row + block * R::kStride);
        e.exp_less(highest);
        e.store(row + block * R::kStride);
        sum = sum + e.template fold_to_four<Fold::kTotal>();
    }
    const float inverse = 1.0f / sum.total();
    for (int block = 0; block < p.blocks; ++block) {
        R q = R::load(row + block * R::kStride);
        q.times(inverse);
        q.store(row + block * R::kStride);
    }
}

template <class R>
SEGBATCH_INLINE void splat_term(const Pass& p, const Term& term, std::int64_t first, int count, const float* q) {
    const Lattice& lattice = *term.lattice;
    const std::uint32_t* indices = lattice.index.template as<std::uint32_t>();
    const float* weights = lattice.weight.template as<float>();
    const std::size_t plane = static_cast<std::size_t>(lattice.vertices) * R::kStride;
    with_corners(lattice.dimensions + 1, [&](int corners) SEGBATCH_LAMBDA_INLINE {
        const std::uint32_t* index = indices + first * corners;
        const float* weight = weights + first * corners;
        const int ahead = first + 2 * kTile <= p.points ? kTile * corners : 0;
        for (int t = 0; t < count; ++t, index += corners, weight += corners) {
            if (p.blocks == 1) {
                for (int r = 0; r < corners; ++r) {
                    prefetch_row<R>(term.values + static_cast<std::size_t>(index[ahead + r]) * R::kStride);
                }
            }
            const float s = lattice.before == nullptr ? 1.0f : lattice.before[first + t];
            for (int block = 0; block < p.blocks; ++block) {
                R row = R::load(q + static_cast<std::size_t>(t) * p.padded + block * R::kStride);
                row.times(s);
                scatter(row, term.values + block * plane, index, weight, corners);
            }
        }
    });
}

// A term from the pixel `first` on, in copies that the compiler need not read again after every store.
struct View {
    const std::uint32_t* index;
    const float* weight;
    const float* factor;  // of each pixel, or null
    float* values;
    float scale;
};

SEGBATCH_INLINE View view_of(const Term& term, int corners, std::int64_t first, const float* factor, float* values) {
    return {term.lattice->index.as<std::uint32_t>() + first * corners,
            term.lattice->weight.as<float>() + first * corners,
            factor == nullptr ? nullptr : factor + first,
            values,
            term.lattice->scale * term.potts};
}

// The usual model on the usual number of labels: all terms Potts, one block. Rows stay in registers from the unary
// to the sum over all terms.
template <class R, int C0, int C1, bool PREFETCH>
SEGBATCH_INLINE void slice_potts(const Pass& p, std::int64_t first, int count, float* tile) {
    const View views[2] = {view_of(p.terms[0], C0, first, p.terms[0].lattice->after, p.terms[0].blurred),
                           view_of(p.terms[1], C1, first, p.terms[1].lattice->after, p.terms[1].blurred)};
    const std::uint32_t* const soon = views[0].index + (first + 2 * kTile <= p.points ? kTile * C0 : 0);
    for (int t = 0; t < count; ++t) {
        const std::uint32_t* index = views[0].index + t * C0;
        const float* weight = views[0].weight + t * C0;
        for (int r = 0; PREFETCH && r < C0; ++r) {
            prefetch_row<R>(views[0].values + static_cast<std::size_t>(soon[t * C0 + r]) * R::kStride);
        }
        const float* unary = p.unary + static_cast<std::size_t>(first + t) * R::kStride;
        if (PREFETCH) {  // what passes by, so that it does not drive the vertices from the cache
            SEGBATCH_PREFETCH_ONCE(unary + kStream * R::kStride);
            if (R::kStride > 16) SEGBATCH_PREFETCH_ONCE(unary + kStream * R::kStride + 16);
            for (int k = 0; k < 2; ++k) {
                const int corners = k == 0 ? C0 : C1;
                SEGBATCH_PREFETCH_ONCE(views[k].index + (t + kStream) * corners);
                SEGBATCH_PREFETCH_ONCE(views[k].weight + (t + kStream) * corners);
            }
        }
        R row = R::load(unary);
        row.add(views[0].factor == nullptr ? views[0].scale : views[0].scale * views[0].factor[t],
                gather<R>(views[0].values, index, weight, C0));
        row.add(views[1].factor == nullptr ? views[1].scale : views[1].scale * views[1].factor[t],
                gather<R>(views[1].values, views[1].index + t * C1, views[1].weight + t * C1, C1));
        row.store(tile + t * R::kStride);
    }
}

// Both terms' splat of q[pixel] * factors[pixel].
template <class R, int C0, int C1, bool PREFETCH>
SEGBATCH_INLINE void splat_both(const Pass& p, std::int64_t first, int count, const float* q, const float* factors) {
    const View views[2] = {view_of(p.terms[0], C0, first, p.terms[0].lattice->before, p.terms[0].values),
                           view_of(p.terms[1], C1, first, p.terms[1].lattice->before, p.terms[1].values)};
    const std::uint32_t* const soon = views[0].index + (first + 2 * kTile <= p.points ? kTile * C0 : 0);
    for (int t = 0; t < count; ++t) {
        for (int r = 0; PREFETCH && r < C0; ++r) {
            prefetch_row<R>(views[0].values + static_cast<std::size_t>(soon[t * C0 + r]) * R::kStride);
        }
        R row = R::load(q + t * R::kStride);
        row.times(factors[t]);
        R bilateral = row;
        if (views[0].factor != nullptr) bilateral.times(views[0].factor[t]);
        scatter(bilateral, views[0].values, views[0].index + t * C0, views[0].weight + t * C0, C0);
        if (views[1].factor != nullptr) row.times(views[1].factor[t]);
        scatter(row, views[1].values, views[1].index + t * C1, views[1].weight + t * C1, C1);
    }
}

void emit(const Pass& p, std::int64_t first, int count, const float* q) {
    if (p.output == Output::kRows) {
        std::memcpy(p.rows + first * p.padded, q, sizeof(float) * static_cast<std::size_t>(count) * p.padded);
        return;
    }
    std::int64_t pixel[kTile];
    Walk walk(p.height, p.width, first);
    for (int t = 0; t < count; ++t, walk.next()) pixel[t] = walk.pixel();
    for (int t = 0; t < count; ++t) {
        const float* row = q + static_cast<std::size_t>(t) * p.padded;
        int best = 0;
        for (int l = 1; l < p.labels; ++l) best = row[l] > row[best] ? l : best;
        p.winner[pixel[t]] = best;
        p.highest[pixel[t]] = row[best];
    }
}

double divergence_of(const Pass& p, const float* q, const float* logits) {
    double sum = 0.0;
    for (int l = 0; l < p.labels; ++l) {
        if (q[l] > 0.0f) sum += q[l] * (__builtin_log(static_cast<double>(q[l])) - logits[l]);
    }
    return sum;
}

// Softmax of each row of a tile, up to a factor of its own; short rows several at once, with a factor of 1.
template <class R>
SEGBATCH_INLINE void softmax_rows(float* tile, float* factors) {
    if constexpr (R::kStride < kLongest && kLongest % R::kStride == 0) {
        for (int t = 0; t < kTile * R::kStride; t += kLongest) {
            softmax_in_groups<R::kStride>(Vec<kLongest>::load(tile + t)).store(tile + t);
        }
        for (int t = 0; t < kTile; ++t) factors[t] = 1.0f;
    } else {
        Vec<4> four[kTile];
        alignas(64) float highest[kTile];
        for (int t = 0; t < kTile; ++t) {
            four[t] = R::load(tile + t * R::kStride).template fold_to_four<Fold::kHighest>();
        }
        for (int t = 0; t < kTile; t += 4) {
            fold_each<Fold::kHighest>(four[t], four[t + 1], four[t + 2], four[t + 3]).store(highest + t);
        }
        for (int t = 0; t < kTile; ++t) {
            R row = R::load(tile + t * R::kStride);
            row.exp_less(highest[t]);
            row.store(tile + t * R::kStride);
            four[t] = row.template fold_to_four<Fold::kTotal>();
        }
        for (int t = 0; t < kTile; t += 4) {
            const Vec<4> total = fold_each<Fold::kTotal>(four[t], four[t + 1], four[t + 2], four[t + 3]);
            (Vec<4>::all(1.0f) / total).store(factors + t);
        }
    }
}

// Takes the factors into the rows.
template <class R>
SEGBATCH_INLINE void scale_rows(float* tile, float* factors) {
    for (int t = 0; t < kTile; ++t) {
        R row = R::load(tile + t * R::kStride);
        row.times(factors[t]);
        row.store(tile + t * R::kStride);
        factors[t] = 1.0f;
    }
}

// The usual model: a bilateral and a Gaussian kernel, both Potts, in one block of labels.
template <class R, bool PREFETCH>
void pass_usual(const Pass& p, float* tile) {
    alignas(64) float factors[kTile];
    for (std::int64_t first = 0; first < p.points; first += kTile) {
        const int count = p.points - first < kTile ? static_cast<int>(p.points - first) : kTile;
        if (p.source == Source::kTerms) {
            slice_potts<R, 6, 3, PREFETCH>(p, first, count, tile);
        } else {
            std::memcpy(tile, p.unary + first * p.padded, sizeof(float) * static_cast<std::size_t>(count) * p.padded);
        }
        softmax_rows<R>(tile, factors);
        if (p.output != Output::kNone) {
            scale_rows<R>(tile, factors);
            emit(p, first, count, tile);
        }
        if (p.splat) splat_both<R, 6, 3, PREFETCH>(p, first, count, tile, factors);
    }
}

bool is_usual(const Pass& p) {
    return p.blocks == 1 && p.term_count == 2 && p.source != Source::kMarginals && p.divergence == nullptr &&
           p.terms[0].compat == Compat::kPotts && p.terms[1].compat == Compat::kPotts &&
           p.terms[0].lattice->dimensions == 5 && p.terms[1].lattice->dimensions == 2;
}

template <class R>
void pass_blocks(const Pass& p, float* tile) {
    if (is_usual(p)) {
        const std::size_t bytes = static_cast<std::size_t>(p.terms[0].lattice->vertices) * R::kStride * sizeof(float);
        return bytes > kNear ? pass_usual<R, true>(p, tile) : pass_usual<R, false>(p, tile);
    }
    double divergence = 0.0;
    for (std::int64_t first = 0; first < p.points; first += kTile) {
        const int count = p.points - first < kTile ? static_cast<int>(p.points - first) : kTile;
        const std::size_t length = static_cast<std::size_t>(count) * p.padded;
        if (p.source == Source::kMarginals) {
            std::memcpy(tile, p.marginals + first * p.padded, length * sizeof(float));
        } else {
            std::memcpy(tile, p.unary + first * p.padded, length * sizeof(float));
            for (int k = 0; k < p.term_count && p.source == Source::kTerms; ++k) {
                slice_term<R>(p, p.terms[k], first, count, tile);
            }
            if (p.divergence != nullptr) {
                for (int t = 0; t < count; ++t) {
                    divergence += divergence_of(p, p.marginals + (first + t) * p.padded,
                                                tile + static_cast<std::size_t>(t) * p.padded);
                }
            }
            for (int t = 0; t < count; ++t) softmax<R>(p, tile + static_cast<std::size_t>(t) * p.padded);
        }
        if (p.splat) {
            for (int k = 0; k < p.term_count; ++k) splat_term<R>(p, p.terms[k], first, count, tile);
        }
        if (p.output != Output::kNone) emit(p, first, count, tile);
    }
    if (p.divergence != nullptr) *p.divergence = divergence;
}

// Blur along an axis, in place through its chains: new = old + previous / 2 + next / 2.
template <class R>
void blur_axis(const Lattice& lattice, int axis, float* values) {
    static constexpr float kShare[2] = {0.5f, 0.0f};  // of the next: there is none at the end of a chain
    const std::uint32_t* chain = lattice.chains.as<std::uint32_t>() + lattice.chain_begin[axis];
    const std::uint32_t* const end = chain + lattice.chain_length[axis];
    const auto row = [&](std::uint32_t entry) SEGBATCH_LAMBDA_INLINE {
        return values + static_cast<std::size_t>(entry & ~kChainEnd) * R::kStride;
    };
    float* at = row(*chain);
    R previous = R::zero(), current = R::load(at);
    float before = 0.0f;
    for (; chain != end; ++chain) {
        prefetch_row<R>(row(chain[kLookAhead]));
        const float after = kShare[*chain >> 31];
        float* const next = row(chain[1]);
        const R ahead = R::load(next);
        R sum = current;
        sum.add(before, previous);
        sum.add(after, ahead);
        sum.store(at);
        previous = current;
        current = ahead;
        before = after;
        at = next;
    }
}

}  // namespace

void pass(const Pass& p) {
    alignas(64) float small[(kTile + 1) * 32] = {};  // the last tile's spare rows are worked on too
    Buffer buffer;
    float* tile = p.padded <= 32 ? small : buffer.reserve<float>(static_cast<std::size_t>(kTile + 1) * p.padded);
    with_row(p.padded / p.blocks, [&](auto row) { pass_blocks<decltype(row)>(p, tile); });
}

void blur(const Term& term, int padded, int blocks) {
    const Lattice& lattice = *term.lattice;
    with_row(padded / blocks, [&](auto row) {
        typedef decltype(row) R;
        const std::size_t plane = static_cast<std::size_t>(lattice.vertices) * R::kStride;
        for (int block = 0; block < blocks; ++block) {
            for (int axis = 0; axis <= lattice.dimensions; ++axis) {
                blur_axis<R>(lattice, axis, term.values + block * plane);
            }
        }
    });
}

}  // namespace SEGBATCH_ISA
