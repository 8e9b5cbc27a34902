// Dense CRF inference by mean field (Krähenbühl & Koltun 2011): models, memory and threads. Knows nothing of Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace segbatch {

// The features lie so far apart that a vertex cannot be named; says which and what to do.
struct SpanError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};
// The image does not fit in memory; says how much it would need and what to do.
struct MemoryError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A pairwise term as the caller describes it. `energies` holds (labels) or (labels, labels) numbers, or none for Potts.
struct KernelSpec {
    Points::Kind kind = Points::Kind::kPositions;
    float theta[5] = {1, 1, 1, 1, 1};
    int dimensions = 2;
    const float* vectors = nullptr;
    Normalization normalization = Normalization::kSymmetric;
    Compat compat = Compat::kPotts;
    float potts = 0.0f;
    std::vector<float> energies;
};

// One image and what is known of it. Exactly one of `unary` and `coarse` is given.
struct Image {
    std::int64_t height = 0;
    std::int64_t width = 0;
    int labels = 0;
    const std::uint8_t* rgb = nullptr;  // (height, width, 3), may be null if no kernel looks at it
    const float* unary = nullptr;       // energies (labels, height, width)
    const float* coarse = nullptr;      // logits (labels, coarse_height, coarse_width)
    std::int64_t coarse_height = 0;
    std::int64_t coarse_width = 0;
    int stride = 1;

    std::int64_t points() const { return height * width; }
};

// What inference leaves: planes (labels, points), or the winner and its marginal (points).
struct Result {
    float* planes = nullptr;
    std::int32_t* winner = nullptr;
    float* highest = nullptr;
};

// The arrays of one inference, reused for the next image of this thread.
struct Workspace {
    struct PerTerm {
        Lattice lattice;
        Buffer values, blurred, energies;
    };
    BuildScratch scratch;
    Buffer rows, cells;
    std::vector<PerTerm> terms;

    std::uint64_t bytes() const;
};

// Lends a workspace the memory of the planes that will be written, for the values of the term with most vertices: they
// are no longer needed then. Small planes are not worth it.
class Loan {
public:
    Loan(Workspace& workspace, const Image& image, const std::vector<KernelSpec>& kernels, float* planes);
    ~Loan();
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

private:
    Workspace& workspace_;
};

// Lattices and unary of one image, ready to iterate. Not for use by two threads at once.
class Inference {
public:
    Inference(const Image& image, const std::vector<KernelSpec>& kernels, const Kernels& isa, Workspace& workspace);

    // Once: the unary is overwritten.
    void run(int iterations, const Result& result);
    // One update of marginals (points, padded) in place; returns the KL divergence of what came in, up to log Z, or 0
    // if it is not wanted (its logarithms take as long as the step).
    double step(float* rows, bool wants_divergence);
    // The marginals before any step: softmax of the unary, to rows (points, padded).
    void start(float* rows);

    // Rows (points, padded) to planes (labels, height, width).
    void to_planes(const float* rows, float* planes) const;

    int padded() const { return layout_.stride * layout_.blocks; }
    std::int64_t vertices(int term) const { return terms_[term].lattice->vertices; }

private:
    Pass make_pass() const;
    void blur();

    const Kernels& isa_;
    Layout layout_;
    std::int64_t height_, width_, points_;
    int labels_;
    Workspace& workspace_;
    float* unary_;
    std::vector<Term> terms_;
    std::vector<std::shared_ptr<const Lattice>> kept_;
};

// Marginals of each image, `threads` at a time; every image is computed by one thread, so that the result does not
// depend on their number. The first error of any image is thrown once all threads have stopped.
struct Task {
    Image image;
    const std::vector<KernelSpec>* kernels = nullptr;
    int iterations = 0;
    Result result;
};
void run_tasks(const std::vector<Task>& tasks, int threads, const Kernels& isa);

// A workspace that returns to the pool when it is no longer used.
class WorkspaceLease {
public:
    WorkspaceLease();
    ~WorkspaceLease();
    WorkspaceLease(const WorkspaceLease&) = delete;
    WorkspaceLease& operator=(const WorkspaceLease&) = delete;
    Workspace& operator*() const { return *workspace_; }

private:
    std::unique_ptr<Workspace> workspace_;
};

struct CacheInfo {
    std::uint64_t lattices = 0, lattice_bytes = 0, hits = 0, misses = 0, workspaces = 0, workspace_bytes = 0;
};
CacheInfo cache_info();
void clear_cache();

// Returns the bytes of memory that are free, 0 if unknown; called in any thread before an image takes `needed` bytes.
using MemoryProbe = std::uint64_t (*)(std::uint64_t needed);
void set_memory_probe(MemoryProbe probe);

// Bytes that inference takes at its peak, from what is known before the lattice is built.
std::uint64_t estimate_memory(const Image& image, const std::vector<KernelSpec>& kernels);

// The lattice alone, for measuring: vertices of the kernel's lattice for that image.
std::int64_t build_only(const Image& image, const KernelSpec& kernel, const Kernels& isa);

}  // namespace segbatch
