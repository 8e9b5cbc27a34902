// The filter of a single channel: it gives the normalisation, and the masses that 16-bit values are shares of.

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

void splat(const Lattice& lattice, const float* in, float* values) {
    const int corners = lattice.dimensions + 1;
    const std::uint32_t* index = lattice.index.as<std::uint32_t>();
    const float* weight = lattice.weight.as<float>();
    std::memset(values, 0, static_cast<std::size_t>(lattice.vertices) * sizeof(float));
    for (std::int64_t i = 0; i < lattice.points; ++i) {
        const float x = in == nullptr ? 1.0f : in[i];
        for (int r = 0; r < corners; ++r) values[index[i * corners + r]] += weight[i * corners + r] * x;
    }
}

void blur_axis(const Lattice& lattice, int axis, float* values, float* mass, float* inverse) {
    const std::int64_t begin = lattice.chain_begin[axis], length = lattice.chain_length[axis];
    const std::uint32_t* chain = lattice.chains.as<std::uint32_t>() + begin;
    float previous = 0.0f, current = values[chain[0] & ~kChainEnd];
    for (std::int64_t p = 0; p < length; ++p) {
        const bool last = (chain[p] & kChainEnd) != 0;
        const float ahead = values[chain[p + 1] & ~kChainEnd];
        const float blurred = current + 0.5f * (previous + (last ? 0.0f : ahead));
        values[chain[p] & ~kChainEnd] = blurred;
        if (mass != nullptr) {
            mass[begin + p] = current;
            inverse[begin + p] = blurred > 0.0f ? 1.0f / blurred : 0.0f;
        }
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

void record_masses(Lattice& lattice, float* values) {
    const std::int64_t m = lattice.vertices;
    const int d = lattice.dimensions;
    float* inverse_splat = lattice.inverse_splat_mass.reserve<float>(static_cast<std::size_t>(m));
    float* mass = lattice.chain_mass.reserve<float>(static_cast<std::size_t>(lattice.chain_begin[d + 1]));
    float* inverse = lattice.chain_inverse_mass.reserve<float>(static_cast<std::size_t>(lattice.chain_begin[d + 1]));
    splat(lattice, lattice.before, values);
    for (std::int64_t v = 0; v < m; ++v) inverse_splat[v] = values[v] > 0.0f ? 65535.0f / values[v] : 0.0f;
    for (int axis = 0; axis <= d; ++axis) {
        blur_axis(lattice, axis, values, mass, inverse);
        const std::int64_t end = lattice.chain_begin[axis] + lattice.chain_length[axis];
        for (std::int64_t p = end; p < lattice.chain_begin[axis + 1]; ++p) mass[p] = inverse[p] = 0.0f;
    }
    const std::int64_t entries = lattice.points * (d + 1);
    float* slice_weight = lattice.slice_weight.reserve<float>(static_cast<std::size_t>(entries));
    const std::uint32_t* index = lattice.index.as<std::uint32_t>();
    const float* weight = lattice.weight.as<float>();
    for (std::int64_t i = 0; i < entries; ++i) slice_weight[i] = weight[i] * values[index[i]] * (1.0f / 65535.0f);
    lattice.has_masses = true;
    // There are weights for either way now, which take the normalisation in.
    if (lattice.after != nullptr) scale_weights(lattice, lattice.after, slice_weight);
    if (lattice.before != nullptr) scale_weights(lattice, lattice.before, lattice.weight.as<float>());
    lattice.before = lattice.after = nullptr;
}

}  // namespace

// A point far outside every other's reach still filters itself, so the sums are above 0 up to rounding; the tiny
// constant is the reference's.
void normalize(Normalization kind, bool masses, Lattice& lattice, BuildScratch& scratch) {
    float* values = scratch.sums.reserve<float>(static_cast<std::size_t>(lattice.vertices));
    lattice.before = lattice.after = nullptr;
    lattice.has_masses = false;
    if (kind != Normalization::kNone) {
        float* norm = lattice.norm.reserve<float>(static_cast<std::size_t>(lattice.points));
        splat(lattice, nullptr, values);
        for (int axis = 0; axis <= lattice.dimensions; ++axis) blur_axis(lattice, axis, values, nullptr, nullptr);
        slice(lattice, values, norm);
        for (std::int64_t i = 0; i < lattice.points; ++i) {
            norm[i] = kind == Normalization::kSymmetric ? 1.0f / sqrtf(norm[i] + 1e-20f) : 1.0f / (norm[i] + 1e-20f);
        }
        if (kind == Normalization::kSymmetric) {  // the same both ways
            scale_weights(lattice, norm, lattice.weight.as<float>());
        } else {
            (kind == Normalization::kBefore ? lattice.before : lattice.after) = norm;
        }
    }
    if (masses) record_masses(lattice, values);
}

}  // namespace SEGBATCH_ISA
