// The filter of a single channel: it gives the normalisation.

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

void splat_ones(const Lattice& lattice, float* values) {
    const int corners = lattice.dimensions + 1;
    const std::uint32_t* index = lattice.index.as<std::uint32_t>();
    const float* weight = lattice.weight.as<float>();
    std::memset(values, 0, static_cast<std::size_t>(lattice.vertices) * sizeof(float));
    for (std::int64_t i = 0; i < lattice.points; ++i) {
        for (int r = 0; r < corners; ++r) values[index[i * corners + r]] += weight[i * corners + r];
    }
}

void blur_axis(const Lattice& lattice, int axis, float* values) {
    const std::uint32_t* chain = lattice.chains.as<std::uint32_t>() + lattice.chain_begin[axis];
    const std::int64_t length = lattice.chain_length[axis];
    float previous = 0.0f, current = values[chain[0] & ~kChainEnd];
    for (std::int64_t p = 0; p < length; ++p) {
        const bool last = (chain[p] & kChainEnd) != 0;
        const float ahead = values[chain[p + 1] & ~kChainEnd];
        values[chain[p] & ~kChainEnd] = current + 0.5f * (previous + (last ? 0.0f : ahead));
        previous = last ? 0.0f : current;
        current = ahead;
    }
}

void slice(const Lattice& lattice, const float* values, float* out) {
    const int corners = lattice.dimensions + 1;
    const std::uint32_t* index = lattice.index.as<std::uint32_t>();
    const float* weight = lattice.weight.as<float>();
    for (std::int64_t i = 0; i < lattice.points; ++i) {
        float sum = 0.0f;
        for (int r = 0; r < corners; ++r) sum += weight[i * corners + r] * values[index[i * corners + r]];
        out[i] = sum * lattice.scale;
    }
}

// weight[i, r] *= factors[i]
void scale_weights(const Lattice& lattice, const float* factors, float* weight) {
    const int corners = lattice.dimensions + 1;
    for (std::int64_t i = 0; i < lattice.points; ++i) {
        for (int r = 0; r < corners; ++r) weight[i * corners + r] *= factors[i];
    }
}

}  // namespace

// A point far outside every other's reach still filters itself, so the sums are above 0 up to rounding; the tiny
// constant is the reference's.
void normalize(Normalization kind, Lattice& lattice, BuildScratch& scratch) {
    lattice.before = lattice.after = nullptr;
    if (kind == Normalization::kNone) return;
    float* values = scratch.sums.reserve<float>(static_cast<std::size_t>(lattice.vertices));
    Buffer& memory = kind == Normalization::kSymmetric ? scratch.table : lattice.norm;
    float* norm = memory.reserve<float>(static_cast<std::size_t>(lattice.points));
    splat_ones(lattice, values);
    for (int axis = 0; axis <= lattice.dimensions; ++axis) blur_axis(lattice, axis, values);
    slice(lattice, values, norm);
    for (std::int64_t i = 0; i < lattice.points; ++i) {
        norm[i] = kind == Normalization::kSymmetric ? 1.0f / sqrtf(norm[i] + 1e-20f) : 1.0f / (norm[i] + 1e-20f);
    }
    if (kind == Normalization::kSymmetric) {  // the same both ways, so that the weights take it in
        scale_weights(lattice, norm, lattice.weight.as<float>());
    } else {
        (kind == Normalization::kBefore ? lattice.before : lattice.after) = norm;
    }
}

}  // namespace SEGBATCH_ISA
