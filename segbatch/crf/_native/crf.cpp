#include "crf.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "cache.h"

namespace segbatch {

namespace {

MemoryProbe memory_probe = nullptr;
constexpr std::uint64_t kProbed = std::uint64_t{16} << 20;  // of an image: worth asking how much memory is free

constexpr std::size_t kBig = std::size_t{8} << 20;  // of an array: worth being reused or returned within an image

Points points_of(const Image& image, const KernelSpec& kernel) {
    Points points;
    points.kind = kernel.kind;
    points.height = image.height;
    points.width = image.width;
    points.dimensions = kernel.dimensions;
    std::copy(std::begin(kernel.theta), std::end(kernel.theta), std::begin(points.theta));
    points.image = image.rgb;
    points.vectors = kernel.vectors;
    return points;
}

void build_lattice(const Points& points, Normalization normalization, const Kernels& isa, Lattice& lattice, BuildScratch& scratch) {
    if (!isa.build(points, lattice, scratch)) {
        throw SpanError(
            "the pixels lie more than 2,000,000 standard deviations apart in the feature space of a kernel; "
            "raise its theta (such a kernel joins no two pixels), or leave the kernel out");
    }
    isa.normalize(normalization, lattice, scratch);
}

// Compatibilities in rows of `padded`, zeros behind; a matrix by columns, since a message is taken label by label.
const float* pad_energies(const KernelSpec& kernel, int labels, int padded, Buffer& buffer) {
    if (kernel.compat == Compat::kPotts) return nullptr;
    const int columns = kernel.compat == Compat::kMatrix ? labels : 1;
    const std::size_t count = static_cast<std::size_t>(columns) * padded;
    float* out = buffer.reserve<float>(count);
    std::fill(out, out + count, 0.0f);
    for (int column = 0; column < columns; ++column) {
        for (int row = 0; row < labels; ++row) {
            out[static_cast<std::size_t>(column) * padded + row] =
                kernel.energies[static_cast<std::size_t>(row) * columns + column];
        }
    }
    return out;
}

}  // namespace

std::uint64_t Workspace::bytes() const {
    std::uint64_t sum = rows.capacity() + cells.capacity() + scratch.table.capacity() + scratch.keys.capacity() +
                        scratch.next.capacity() + scratch.starts.capacity() + scratch.has_previous.capacity() +
                        scratch.sums.capacity();
    for (const PerTerm& t : terms) {
        sum += t.lattice.bytes() + t.values.capacity() + t.blurred.capacity() + t.energies.capacity();
    }
    return sum;
}

void set_memory_probe(MemoryProbe probe) { memory_probe = probe; }

std::uint64_t estimate_memory(const Image& image, const std::vector<KernelSpec>& kernels) {
    const Layout layout = layout_for(image.labels);
    const std::uint64_t points = static_cast<std::uint64_t>(image.points());
    const std::uint64_t padded = static_cast<std::uint64_t>(layout.stride) * layout.blocks;
    std::uint64_t bytes = points * padded * 4;
    for (const KernelSpec& k : kernels) {
        const std::uint64_t corners = static_cast<std::uint64_t>(k.dimensions) + 1;
        double vertices = static_cast<double>(points);
        if (k.kind == Points::Kind::kPositions) {
            vertices = std::min(3.0 * vertices, 2.0 * vertices / (static_cast<double>(k.theta[0]) * k.theta[1]) + 64.0);
        }
        const std::uint64_t m = static_cast<std::uint64_t>(vertices);
        bytes += points * (corners * 8 + 4);
        bytes += m * (padded * 8 + corners * 4 + 48);
    }
    return bytes;
}

Loan::Loan(Workspace& workspace, const Image& image, const std::vector<KernelSpec>& kernels, float* planes)
    : workspace_(workspace) {
    const std::size_t bytes = static_cast<std::size_t>(image.points()) * image.labels * sizeof(float);
    if (planes == nullptr || bytes < kBig) return;
    for (std::size_t k = 0; k < kernels.size(); ++k) {
        if (kernels[k].kind == Points::Kind::kPositions) continue;
        if (workspace.terms.size() <= k) workspace.terms.resize(k + 1);
        workspace.terms[k].values.borrow(planes, bytes);
        return;
    }
}

Loan::~Loan() {
    // The scratch's table changes places with the values while a lattice is built, which may have failed.
    if (workspace_.scratch.table.borrowed()) workspace_.scratch.table.release();
    for (Workspace::PerTerm& term : workspace_.terms) {
        if (term.values.borrowed()) term.values.release();
    }
}

Inference::Inference(const Image& image, const std::vector<KernelSpec>& kernels, const Kernels& isa,
                     Workspace& workspace)
    : isa_(isa),
      layout_(layout_for(image.labels)),
      height_(image.height),
      width_(image.width),
      points_(image.points()),
      labels_(image.labels),
      workspace_(workspace) {
    const std::uint64_t needed = estimate_memory(image, kernels);
    const std::uint64_t available = memory_probe != nullptr && needed >= kProbed ? memory_probe(needed) : 0;
    if (available > 0 && needed > available + workspace.bytes()) {
        throw MemoryError("image of " + std::to_string(image.height) + " x " + std::to_string(image.width) + " with " +
                          std::to_string(image.labels) + " labels needs about " + std::to_string(needed >> 20) +
                          " MiB, but " + std::to_string(available >> 20) +
                          " MiB are free; cut the image into tiles, or keep fewer labels (prune)");
    }
    const std::size_t padded = static_cast<std::size_t>(this->padded());
    float* rows = workspace.rows.reserve<float>(static_cast<std::size_t>(points_) * padded);
    if (image.unary != nullptr) {
        isa.rows_from_planes(image.unary, image.height, image.width, labels_, static_cast<int>(padded), rows);
    } else {
        const std::size_t cells = static_cast<std::size_t>(image.coarse_height * image.coarse_width);
        isa.rows_from_coarse(image.coarse, image.coarse_height, image.coarse_width, image.stride, image.height,
                             image.width, labels_, static_cast<int>(padded),
                             workspace.cells.reserve<float>(cells * padded), rows);
    }
    unary_ = rows;

    while (workspace.terms.size() < kernels.size()) workspace.terms.emplace_back();
    for (std::size_t k = 0; k < kernels.size(); ++k) {
        const KernelSpec& kernel = kernels[k];
        Workspace::PerTerm& own = workspace.terms[k];
        const Points points = points_of(image, kernel);
        // The lattice is built in the memory that its values will take.
        std::swap(workspace.scratch.table, own.values);
        std::swap(workspace.scratch.keys, own.blurred);
        Term term;
        if (kernel.kind == Points::Kind::kPositions) {
            const LatticeKey key{points.height, points.width, kernel.theta[0], kernel.theta[1], kernel.normalization};
            std::shared_ptr<const Lattice> kept = find_lattice(key);
            if (kept == nullptr) {
                auto built = std::make_shared<Lattice>();
                build_lattice(points, kernel.normalization, isa, *built, workspace.scratch);
                kept = std::move(built);
                keep_lattice(key, kept);
            }
            term.lattice = kept.get();
            kept_.push_back(std::move(kept));
        } else {
            build_lattice(points, kernel.normalization, isa, own.lattice, workspace.scratch);
            term.lattice = &own.lattice;
        }
        std::swap(workspace.scratch.table, own.values);
        std::swap(workspace.scratch.keys, own.blurred);
        term.compat = kernel.compat;
        term.potts = kernel.potts;
        term.energies = pad_energies(kernel, labels_, static_cast<int>(padded), own.energies);
        const std::size_t count = static_cast<std::size_t>(term.lattice->vertices) * padded;
        term.values = own.values.reserve<float>(count);
        std::memset(term.values, 0, count * sizeof(float));
        term.blurred = own.blurred.reserve<float>(count);
        terms_.push_back(term);
    }
}

Pass Inference::make_pass() const {
    Pass pass;
    pass.height = height_;
    pass.width = width_;
    pass.points = points_;
    pass.labels = labels_;
    pass.padded = padded();
    pass.blocks = layout_.blocks;
    pass.unary = unary_;
    pass.terms = const_cast<Term*>(terms_.data());
    pass.term_count = static_cast<int>(terms_.size());
    return pass;
}

void Inference::blur() {
    for (Term& term : terms_) {
        isa_.blur(term, padded(), layout_.blocks);
        std::swap(term.values, term.blurred);
        std::memset(term.values, 0, static_cast<std::size_t>(term.lattice->vertices) * padded() * sizeof(float));
    }
}

void Inference::run(int iterations, const Result& result) {
    for (int i = 0; i <= iterations; ++i) {
        Pass pass = make_pass();
        pass.source = i == 0 ? Source::kUnary : Source::kTerms;
        pass.splat = i < iterations;
        if (i == iterations) {
            pass.output = result.planes != nullptr ? Output::kRows : Output::kWinner;
            pass.rows = unary_;
            pass.winner = result.winner;
            pass.highest = result.highest;
        }
        isa_.pass(pass);
        if (pass.splat) blur();
    }
    if (result.planes == nullptr) return;
    // The marginals take the place of the unary, and the planes that of the vertices' values, where they do not lie there.
    for (Workspace::PerTerm& term : workspace_.terms) {
        if (term.values.borrowed() || term.values.capacity() < kBig) continue;
        term.values.release();
        term.blurred.release();
    }
    to_planes(unary_, result.planes);
}

void Inference::to_planes(const float* rows, float* planes) const {
    isa_.planes_from_rows(rows, height_, width_, labels_, padded(), planes);
}

void Inference::start(float* rows) {
    Pass pass = make_pass();
    pass.output = Output::kRows;
    pass.rows = rows;
    isa_.pass(pass);
}

double Inference::step(float* rows, bool wants_divergence) {
    Pass in = make_pass();
    in.source = Source::kMarginals;
    in.marginals = rows;
    in.splat = true;
    isa_.pass(in);
    blur();
    double divergence = 0.0;
    Pass out = make_pass();
    out.source = Source::kTerms;
    out.marginals = rows;
    out.divergence = wants_divergence ? &divergence : nullptr;
    out.output = Output::kRows;
    out.rows = rows;
    isa_.pass(out);
    return divergence;
}

void run_tasks(const std::vector<Task>& tasks, int threads, const Kernels& isa) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr error;
    std::mutex error_mutex;
    const auto work = [&] {
        try {
            WorkspaceLease lease;
            for (std::size_t i = next++; i < tasks.size(); i = next++) {
                const Task& task = tasks[i];
                const Loan loan(*lease, task.image, *task.kernels, task.result.planes);
                Inference(task.image, *task.kernels, isa, *lease).run(task.iterations, task.result);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
            next = tasks.size();
        }
    };
    std::vector<std::thread> others;
    const std::size_t count = std::min<std::size_t>(static_cast<std::size_t>(threads), tasks.size());
    for (std::size_t i = 1; i < count; ++i) others.emplace_back(work);
    work();
    for (std::thread& t : others) t.join();
    if (error) std::rethrow_exception(error);
}

std::int64_t build_only(const Image& image, const KernelSpec& kernel, const Kernels& isa) {
    WorkspaceLease lease;
    Workspace& workspace = *lease;
    if (workspace.terms.empty()) workspace.terms.emplace_back();
    Lattice& lattice = workspace.terms[0].lattice;
    build_lattice(points_of(image, kernel), kernel.normalization, isa, lattice, workspace.scratch);
    return lattice.vertices;
}

}  // namespace segbatch
