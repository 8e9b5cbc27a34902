// The permutohedral lattice of a set of points (Adams, Baek, Davis 2010): what the filter needs of it.
#pragma once

#include <cstdint>

#include "memory.h"

namespace segbatch {

constexpr int kMaxDimensions = 32;
constexpr std::uint32_t kChainEnd = 0x80000000u;
// The chains of an axis are followed by this many valid entries, so that a look-ahead needs no test.
constexpr std::int64_t kLookAhead = 32;

enum class Normalization { kNone = 0, kBefore = 1, kAfter = 2, kSymmetric = 3 };

// Where the points lie, in standard deviations: (x, y) of each pixel, that and its colour, or given vectors.
struct Points {
    enum class Kind { kPositions, kBilateral, kVectors };
    Kind kind = Kind::kPositions;
    std::int64_t height = 0;
    std::int64_t width = 0;
    int dimensions = 2;
    float theta[5] = {1, 1, 1, 1, 1};       // of x, y, r, g, b
    const std::uint8_t* image = nullptr;    // (height, width, 3)
    const float* vectors = nullptr;         // (dimensions, height * width)

    std::int64_t count() const { return height * width; }
};

// A point touches dimensions + 1 vertices. The vertices along an axis form chains; the blur along that axis runs
// through each chain in place. A vertex without neighbour on an axis is in no chain of it.
struct Lattice {
    int dimensions = 0;
    std::int64_t points = 0;
    std::int64_t vertices = 0;
    Buffer index;   // uint32 (points, dimensions + 1): vertices of a point
    Buffer weight;  // float (points, dimensions + 1): its barycentric coordinates, maybe times the normalisation
    Buffer chains;  // uint32: per axis, vertices in chain order, kChainEnd set on the last of a chain
    std::int64_t chain_begin[kMaxDimensions + 2] = {};  // first entry of each axis; the last one ends before + kLookAhead
    std::int64_t chain_length[kMaxDimensions + 1] = {};

    // Normalisation: a value is multiplied by `before[i]` on its way in, by `after[i] * scale` on its way out.
    // Null means 1, or that the weights have taken it in.
    const float* before = nullptr;
    const float* after = nullptr;
    float scale = 1.0f;  // of the blur: 1 / (1 + 2^-dimensions)
    Buffer norm;         // float (points)

    std::uint64_t bytes() const;
};

// Scratch memory for building a lattice; its size is kept from one image to the next.
struct BuildScratch {
    Buffer table, keys, next, has_previous, values, sums;
    std::int64_t last_vertices = 0;
};

}  // namespace segbatch
