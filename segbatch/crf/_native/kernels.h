// The functions that are compiled once for each instruction set, and the choice among them.
#pragma once

#include <cstdint>

#include "lattice.h"

namespace segbatch {

enum class Evidence { kProbs = 0, kLogits = 1, kUnary = 2 };
enum class Compat { kPotts = 0, kDiagonal = 1, kMatrix = 2 };

// One pairwise term during inference.
struct Term {
    const Lattice* lattice = nullptr;
    Compat compat = Compat::kPotts;
    float potts = 0.0f;             // weight w: adds w * m to the logit
    const float* energies = nullptr;  // (padded) or column-major (padded, padded): subtracted times m
    float* values = nullptr;        // splatted: (blocks, vertices, stride), all zero between passes
    float* blurred = nullptr;       // the array that the slice reads, as long
};

enum class Source { kUnary, kMarginals, kTerms };  // softmax of the unary; given marginals; the blurred terms
enum class Output { kNone, kRows, kWinner };

// One pass over the pixels: marginals from `source`, to `output`, and splatted into the terms if `splat`.
struct Pass {
    std::int64_t height = 0, width = 0;
    std::int64_t points = 0;
    int labels = 0;
    int padded = 0;               // floats in a row of `unary`: blocks * stride
    int blocks = 1;
    const float* unary = nullptr;  // negated energies (points, padded); lanes past `labels` hold a very low number
    const float* marginals = nullptr;  // (points, padded), for Source::kMarginals
    Term* terms = nullptr;
    int term_count = 0;
    Source source = Source::kUnary;
    bool splat = false;
    Output output = Output::kNone;
    float* rows = nullptr;         // (points, padded), may be `unary`
    std::int32_t* winner = nullptr;  // (height, width): label of the highest marginal
    float* highest = nullptr;      // (height, width): that marginal
    double* divergence = nullptr;  // if not null: receives sum of Q (log Q - logit) over `marginals`
};

struct Kernels {
    const char* name;
    bool (*supported)();

    // Builds everything of `lattice` but the normalisation. Returns false if the points span too many cells.
    bool (*build)(const Points& points, Lattice& lattice, BuildScratch& scratch);
    void (*normalize)(Normalization kind, Lattice& lattice, BuildScratch& scratch);
    void (*pass)(const Pass& pass);
    void (*blur)(const Term& term, int padded, int blocks);

    // Energies in planes (labels, height, width) to negated rows (points, padded).
    void (*rows_from_planes)(const float* planes, std::int64_t height, std::int64_t width, int labels, int padded,
                             float* rows);
    // Rows (points, padded) to planes (labels, height, width).
    void (*planes_from_rows)(const float* rows, std::int64_t height, std::int64_t width, int labels, int padded,
                             float* planes);
    // Coarse logits (labels, h, w), bilinear, to rows (height * width, padded); `cells` holds h * w * padded floats.
    void (*rows_from_coarse)(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height,
                             std::int64_t width, int labels, int padded, float* cells, float* rows);
    // The same to planes (labels, height, width).
    void (*upsample)(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height,
                     std::int64_t width, int labels, float* planes);
    // Of coarse logits (labels, h, w), bilinear: the softmax probability of the label `chosen` at each pixel.
    void (*label_probability)(const float* coarse, std::int64_t h, std::int64_t w, int stride,
                              const std::int32_t* chosen, std::int64_t height, std::int64_t width, int labels,
                              float* out);
    // Highest probability of each label over the points that are not ignored.
    void (*peaks)(const float* planes, Evidence kind, const std::uint8_t* ignore, std::int64_t points, int labels,
                  float* peaks);
    // Energies (kept, points) of the labels `keep`; 0 at ignored points.
    void (*energies)(const float* planes, Evidence kind, const std::uint8_t* ignore, std::int64_t points,
                     const std::int32_t* keep, int kept, float* energies);
};

// The row length that a number of labels is padded to, and the blocks it is cut into.
struct Layout {
    int stride;  // of one block: 4, 8, 12, 16, 20, 24 or 32
    int blocks;
};
Layout layout_for(int labels);

// Fastest first. `isa` is "" for the fastest that this processor supports, else a name from isa_names().
const Kernels& kernels_for(const char* isa);
const Kernels* const* all_kernels(int* count);

}  // namespace segbatch
