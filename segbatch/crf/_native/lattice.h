// The permutohedral lattice of a set of points (Adams, Baek, Davis 2010): what the filter needs of it.
#pragma once

#include <cstdint>

#include "memory.h"

namespace segbatch {

constexpr int kMaxDimensions = 32;
constexpr std::uint32_t kChainEnd = 0x80000000u;
// The chains of an axis are followed by this many valid entries, so that a look-ahead needs no test.
constexpr std::int64_t kLookAhead = 64;

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

// The pixels in the order in which everything here holds them: strips of a few image rows, column by column. Pixels that
// follow each other then share their vertices for longer, and what a strip touches stays in the cache.
class Walk {
public:
    static constexpr std::int64_t kStrip = 32;  // rows

    // Rows of the strip that begins at row `top`.
    static std::int64_t rows_from(std::int64_t top, std::int64_t height) {
        return height - top < kStrip ? height - top : kStrip;
    }

    Walk(std::int64_t height, std::int64_t width, std::int64_t point = 0) : height_(height), width_(width) {
        top_ = point / (kStrip * width) * kStrip;
        begin_strip();
        const std::int64_t inside = point - top_ * width;
        x_ = inside / rows_;
        y_ = top_ + inside % rows_;
    }
    std::int64_t x() const { return x_; }
    std::int64_t y() const { return y_; }
    std::int64_t pixel() const { return y_ * width_ + x_; }
    void next() {
        if (++y_ < top_ + rows_) return;
        if (++x_ == width_) {
            x_ = 0;
            top_ += rows_;
            begin_strip();
        }
        y_ = top_;
    }

private:
    void begin_strip() { rows_ = rows_from(top_, height_); }

    std::int64_t height_, width_, top_, rows_ = 1, x_ = 0, y_ = 0;
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
    Buffer table, keys, next, starts, has_previous, sums;
    std::int64_t last_vertices = 0;
};

}  // namespace segbatch
