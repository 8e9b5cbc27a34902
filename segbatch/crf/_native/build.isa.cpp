// Building a lattice. Compiled once for each instruction set, without contraction of multiply and add: the vertex a
// point falls on must not depend on the processor (nor differ from the reference's, on which agreement rests).

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"
#include "kernels.h"
#include "simd.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

constexpr int kLanes = 16;  // points embedded at once
constexpr std::uint64_t kHashFactor = 0x9E3779B97F4A7C15ull;

// A vertex is named by its first d coordinates, which all have the same remainder modulo d + 1: the quotients, each
// in its own field of bits, and the remainder in the lowest field. Neighbours differ by a constant.
struct Naming {
    int words = 1;
    int bits = 0;                          // used in all, if one word
    int word[kMaxDimensions];              // where the quotient's field is
    int shift[kMaxDimensions];
    std::int32_t lowest[kMaxDimensions];   // quotient that the field's 0 stands for
};

constexpr int kMaxWords = kMaxDimensions / 2 + 1;
constexpr float kMaxQuotient = 2097152.0f;  // 2^21: beyond it a float no longer tells neighbouring cells apart

int bits_for(std::uint64_t values) {
    int bits = 1;
    while ((std::uint64_t{1} << bits) < values) ++bits;
    return bits;
}

struct Embedding {
    int d;
    float scale[kMaxDimensions];
};

Embedding make_embedding(int d) {
    Embedding e;
    e.d = d;
    // The filter's own deviation, and the diagonal of the elevation matrix (Adams et al., section 4).
    const float deviation = static_cast<float>(sqrt(2.0 / 3.0) * (d + 1));
    for (int i = 0; i < d; ++i) {
        e.scale[i] = static_cast<float>(1.0 / sqrt(static_cast<double>((i + 2) * (i + 1))) * deviation);
    }
    return e;
}

// Ranges of the features give ranges of the elevated coordinates, which are linear in them.
bool make_naming(const Points& points, const Embedding& e, Naming& naming) {
    const int d = e.d;
    double low[kMaxDimensions], high[kMaxDimensions];
    for (int j = 0; j < d; ++j) {
        if (points.kind == Points::Kind::kVectors) {
            const float* v = points.vectors + static_cast<std::int64_t>(j) * points.count();
            float lo = v[0], hi = v[0];
            for (std::int64_t i = 1; i < points.count(); ++i) {
                lo = v[i] < lo ? v[i] : lo;
                hi = v[i] > hi ? v[i] : hi;
            }
            low[j] = lo;
            high[j] = hi;
        } else {
            const double most = j == 0 ? points.width - 1.0 : j == 1 ? points.height - 1.0 : 255.0;
            low[j] = 0.0;
            high[j] = most / points.theta[j];
        }
    }
    int word = 0, used = bits_for(d + 1);
    for (int i = 0; i < d; ++i) {
        double lo = 0.0, hi = 0.0;
        for (int j = i; j < d; ++j) {
            lo += low[j] * e.scale[j];
            hi += high[j] * e.scale[j];
        }
        if (i > 0) {
            lo -= i * high[i - 1] * e.scale[i - 1];
            hi -= i * low[i - 1] * e.scale[i - 1];
        }
        lo /= d + 1;
        hi /= d + 1;
        if (!(lo > -kMaxQuotient && hi < kMaxQuotient)) return false;
        // One cell for rounding, one for moving back onto the plane, one for the corners, one for neighbours.
        naming.lowest[i] = static_cast<std::int32_t>(lo) - 5;
        const int bits = bits_for(static_cast<std::uint64_t>(static_cast<std::int32_t>(hi) + 5 - naming.lowest[i] + 1));
        if (used + bits > 64) {
            ++word;
            used = 0;
        }
        naming.word[i] = word;
        naming.shift[i] = used;
        used += bits;
    }
    naming.words = word + 1;
    naming.bits = used;
    return true;
}

// Features of kLanes points at a time, as f[dimension][lane]; past the last point they repeat it.
class Loader {
public:
    Loader(const Points& points, Buffer& tables) : points_(points), walk_(points.height, points.width) {
        if (points.kind == Points::Kind::kVectors) return;
        xs_ = tables.reserve<float>(static_cast<std::size_t>(points.width + points.height));
        ys_ = xs_ + points.width;
        for (std::int64_t x = 0; x < points.width; ++x) xs_[x] = static_cast<float>(x) / points.theta[0];
        for (std::int64_t y = 0; y < points.height; ++y) ys_[y] = static_cast<float>(y) / points.theta[1];
        for (int c = 0; c < 3; ++c) {
            for (int v = 0; v < 256; ++v) colour_[c][v] = static_cast<float>(v) / points.theta[2 + c];
        }
    }

    // The next kLanes points.
    template <int D>
    void load(float (*f)[kLanes]) {
        const std::int64_t n = points_.count();
        for (int l = 0; l < kLanes; ++l) {
            const std::int64_t pixel = walk_.pixel();
            if (points_.kind == Points::Kind::kVectors) {
                for (int j = 0; j < points_.dimensions; ++j) f[j][l] = points_.vectors[j * n + pixel];
            } else {
                f[0][l] = xs_[walk_.x()];
                f[1][l] = ys_[walk_.y()];
                if (D != 2 && points_.kind == Points::Kind::kBilateral) {
                    const std::uint8_t* rgb = points_.image + 3 * pixel;
                    f[2][l] = colour_[0][rgb[0]];
                    f[3][l] = colour_[1][rgb[1]];
                    f[4][l] = colour_[2][rgb[2]];
                }
            }
            if (++point_ < n) walk_.next();
        }
    }

private:
    const Points& points_;
    Walk walk_;
    std::int64_t point_ = 0;
    float* xs_ = nullptr;
    float* ys_ = nullptr;
    float colour_[3][256];
};

// The corners of kLanes points: their names and barycentric coordinates. D = 0 takes the dimension from `e`.
template <int D, int WORDS>
SEGBATCH_INLINE void embed(const Embedding& e, const Naming& naming, const float (*f)[kLanes],
                           std::uint64_t (*names)[WORDS][kLanes], float (*weights)[kLanes]) {
    constexpr int kMax = D > 0 ? D : kMaxDimensions;
    const int d = D > 0 ? D : e.d;
    const float down = 1.0f / (d + 1);
    const float up = static_cast<float>(d + 1);
    float elevated[kMax + 1][kLanes], rest[kMax + 1][kLanes], sum[kLanes];
    std::int32_t quotient[kMax + 1][kLanes], rank[kMax + 1][kLanes], off[kLanes];

    for (int l = 0; l < kLanes; ++l) sum[l] = 0.0f;
    for (int j = d; j > 0; --j) {
        for (int l = 0; l < kLanes; ++l) {
            const float c = f[j - 1][l] * e.scale[j - 1];
            elevated[j][l] = sum[l] - static_cast<float>(j) * c;
            sum[l] += c;
        }
    }
    for (int l = 0; l < kLanes; ++l) elevated[0][l] = sum[l];

    // Nearest point whose coordinates are all multiples of d + 1; `off` says how far it is from the plane.
    for (int l = 0; l < kLanes; ++l) off[l] = 0;
    for (int i = 0; i <= d; ++i) {
        for (int l = 0; l < kLanes; ++l) {
            const float v = (elevated[i][l] * down + 12582912.0f) - 12582912.0f;
            quotient[i][l] = static_cast<std::int32_t>(v);
            off[l] += quotient[i][l];
            rest[i][l] = elevated[i][l] - v * up;
            rank[i][l] = 0;
        }
    }
    // Rank of each coordinate's rest; on a tie the later coordinate comes first.
    for (int i = 0; i < d; ++i) {
        for (int j = i + 1; j <= d; ++j) {
            for (int l = 0; l < kLanes; ++l) {
                const std::int32_t lower = rest[i][l] < rest[j][l] ? 1 : 0;
                rank[i][l] += lower;
                rank[j][l] += 1 - lower;
            }
        }
    }
    // Back onto the plane.
    for (int i = 0; i <= d; ++i) {
        for (int l = 0; l < kLanes; ++l) {
            const std::int32_t r = rank[i][l] + off[l];
            const std::int32_t step = r < 0 ? 1 : r > d ? -1 : 0;
            rank[i][l] = r + step * (d + 1);
            quotient[i][l] += step;
            rest[i][l] = (elevated[i][l] - static_cast<float>(quotient[i][l]) * up) * down;
        }
    }
    // Barycentric coordinates: differences of the rests in order of rank. Choices are made with masks of bits, here
    // and below: compilers turn those of `?:` into jumps that no processor foresees.
    std::int32_t bits[kMax + 1][kLanes], chosen[kLanes];
    float sorted[kMax + 1][kLanes];
    std::memcpy(bits, rest, sizeof(bits));
    for (int p = 0; p <= d; ++p) {
        for (int l = 0; l < kLanes; ++l) chosen[l] = 0;
        for (int i = 0; i <= d; ++i) {
            for (int l = 0; l < kLanes; ++l) chosen[l] |= bits[i][l] & -static_cast<std::int32_t>(rank[i][l] == d - p);
        }
        std::memcpy(sorted[p], chosen, sizeof(chosen));
    }
    for (int l = 0; l < kLanes; ++l) weights[0][l] = sorted[0][l] + (1.0f - sorted[d][l]);
    for (int p = 1; p <= d; ++p) {
        for (int l = 0; l < kLanes; ++l) weights[p][l] = sorted[p][l] - sorted[p - 1][l];
    }
    // Names: corner r is corner r - 1 with every coordinate one up, and one of them d + 1 down.
    for (int w = 0; w < WORDS; ++w) {
        for (int l = 0; l < kLanes; ++l) names[0][w][l] = 0;
    }
    for (int i = 0; i < d; ++i) {
        const int w = WORDS == 1 ? 0 : naming.word[i];
        for (int l = 0; l < kLanes; ++l) {
            names[0][w][l] += static_cast<std::uint64_t>(static_cast<std::int64_t>(quotient[i][l] - naming.lowest[i]))
                              << naming.shift[i];
        }
    }
    for (int r = 1; r <= d; ++r) {
        for (int w = 0; w < WORDS; ++w) {
            std::uint32_t low[kLanes] = {}, high[kLanes] = {};  // halves of the unit of the coordinate that goes down
            for (int i = 0; i < d; ++i) {
                if (WORDS > 1 && naming.word[i] != w) continue;
                const std::uint64_t unit = std::uint64_t{1} << naming.shift[i];
                const std::uint32_t unit_low = static_cast<std::uint32_t>(unit);
                const std::uint32_t unit_high = static_cast<std::uint32_t>(unit >> 32);
                for (int l = 0; l < kLanes; ++l) {
                    const std::uint32_t here = 0u - static_cast<std::uint32_t>(rank[i][l] == d - r + 1);
                    low[l] |= unit_low & here;
                    high[l] |= unit_high & here;
                }
            }
            const std::uint64_t one = w == 0 ? 1 : 0;
            for (int l = 0; l < kLanes; ++l) {
                names[r][w][l] = names[r - 1][w][l] + one - (static_cast<std::uint64_t>(high[l]) << 32 | low[l]);
            }
        }
    }
}

// Difference between the name of a vertex and that of its neighbour up an axis.
template <int WORDS>
void neighbour_step(const Naming& naming, int d, int axis, bool wraps, std::uint64_t* step) {
    for (int w = 0; w < WORDS; ++w) step[w] = 0;
    // All coordinates go down by one and that of the axis up by d: the remainder goes down by one, from 0 to d.
    step[0] = wraps ? static_cast<std::uint64_t>(d) : ~std::uint64_t{0};
    for (int i = 0; i < d; ++i) {
        const std::uint64_t unit = std::uint64_t{1} << naming.shift[i];
        const int w = WORDS == 1 ? 0 : naming.word[i];
        if (wraps) step[w] -= unit;
        if (i == axis) step[w] += unit;
    }
}

// Open addressing, linear probing. A slot holds a vertex's number, and its name too where both fit 64 bits.
template <int WORDS>
class Table {
public:
    Table(BuildScratch& scratch, const Naming& naming, std::int64_t points, int corners)
        : scratch_(scratch), id_bits_(bits_for(static_cast<std::uint64_t>(points) * corners + 2)) {
        packed_ = WORDS == 1 && naming.bits + id_bits_ <= 64;
        const std::int64_t expected = scratch.last_vertices > 0 ? scratch.last_vertices : points / 2;
        resize_keys(expected + 1024);
        log2_ = 10;
        while ((std::int64_t{1} << log2_) < expected * 2) ++log2_;
        clear();
    }

    std::int64_t size() const { return size_; }
    std::int64_t key_capacity() const { return key_capacity_; }

    SEGBATCH_INLINE std::uint64_t position(const std::uint64_t* name) const {
        std::uint64_t h = name[0];
        for (int w = 1; w < WORDS; ++w) h = (h ^ (h >> 29)) * kHashFactor + name[w];
        return (h * kHashFactor) >> (64 - log2_);
    }
    SEGBATCH_INLINE void prefetch(const std::uint64_t* name) const {
        if (WORDS == 1 && packed_) {
            SEGBATCH_PREFETCH(slots_ + position(name));
        } else {
            SEGBATCH_PREFETCH(numbers_ + position(name));
        }
    }

    // The vertex of that name, which is added if it is new.
    SEGBATCH_INLINE std::uint32_t insert(const std::uint64_t* name) {
        std::uint64_t at = position(name);
        if (WORDS == 1 && packed_) {
            const std::uint64_t tag = name[0] << id_bits_;
            const std::uint64_t id_mask = (std::uint64_t{1} << id_bits_) - 1;
            for (;; at = (at + 1) & mask_) {
                const std::uint64_t slot = slots_[at];
                if ((slot & ~id_mask) == tag && slot != 0) return static_cast<std::uint32_t>((slot & id_mask) - 1);
                if (slot == 0) {
                    slots_[at] = tag | static_cast<std::uint64_t>(size_ + 1);
                    return add(name);
                }
            }
        }
        for (;; at = (at + 1) & mask_) {
            const std::uint32_t slot = numbers_[at];
            if (slot == 0) {
                numbers_[at] = static_cast<std::uint32_t>(size_ + 1);
                return add(name);
            }
            if (equal(slot - 1, name)) return slot - 1;
        }
    }
    // The vertex of that name, or kNone.
    SEGBATCH_INLINE std::uint32_t find(const std::uint64_t* name) const {
        std::uint64_t at = position(name);
        if (WORDS == 1 && packed_) {
            const std::uint64_t tag = name[0] << id_bits_;
            const std::uint64_t id_mask = (std::uint64_t{1} << id_bits_) - 1;
            for (;; at = (at + 1) & mask_) {
                // Found or absent, both in one branch: an empty slot holds the number kNone + 1.
                const std::uint64_t slot = slots_[at];
                if ((slot == 0) | ((slot & ~id_mask) == tag)) return static_cast<std::uint32_t>((slot & id_mask) - 1);
            }
        }
        for (;; at = (at + 1) & mask_) {
            const std::uint32_t slot = numbers_[at];
            if (slot == 0) return kNone;
            if (equal(slot - 1, name)) return slot - 1;
        }
    }
    const std::uint64_t* key(std::int64_t id) const { return keys_ + id * WORDS; }

    static constexpr std::uint32_t kNone = 0xFFFFFFFFu;

private:
    bool equal(std::uint32_t id, const std::uint64_t* name) const {
        const std::uint64_t* k = key(id);
        for (int w = 0; w < WORDS; ++w) {
            if (k[w] != name[w]) return false;
        }
        return true;
    }
    std::uint32_t add(const std::uint64_t* name) {
        if (size_ == key_capacity_) resize_keys(2 * key_capacity_);
        for (int w = 0; w < WORDS; ++w) keys_[size_ * WORDS + w] = name[w];
        const std::uint32_t id = static_cast<std::uint32_t>(size_++);
        if (size_ * 5 > (std::int64_t{3} << log2_)) {
            ++log2_;
            clear();
            for (std::int64_t i = 0; i < size_; ++i) reinsert(i);
        }
        return id;
    }
    void reinsert(std::int64_t id) {
        std::uint64_t at = position(key(id));
        if (packed_) {
            while (slots_[at] != 0) at = (at + 1) & mask_;
            slots_[at] = (key(id)[0] << id_bits_) | static_cast<std::uint64_t>(id + 1);
        } else {
            while (numbers_[at] != 0) at = (at + 1) & mask_;
            numbers_[at] = static_cast<std::uint32_t>(id + 1);
        }
    }
    void clear() {
        mask_ = (std::uint64_t{1} << log2_) - 1;
        const std::size_t bytes = (std::size_t{1} << log2_) * (packed_ ? 8 : 4);
        void* memory = scratch_.table.reserve(bytes);
        slots_ = static_cast<std::uint64_t*>(memory);
        numbers_ = static_cast<std::uint32_t*>(memory);
        std::memset(memory, 0, bytes);
    }
    void resize_keys(std::int64_t capacity) {
        Buffer larger;
        std::uint64_t* keys = larger.reserve<std::uint64_t>(static_cast<std::size_t>(capacity) * WORDS);
        if (static_cast<std::size_t>(capacity) * WORDS * 8 <= scratch_.keys.capacity()) {
            keys_ = scratch_.keys.as<std::uint64_t>();
        } else {
            if (size_ > 0) std::memcpy(keys, keys_, static_cast<std::size_t>(size_) * WORDS * 8);
            scratch_.keys = static_cast<Buffer&&>(larger);
            keys_ = scratch_.keys.as<std::uint64_t>();
        }
        key_capacity_ = static_cast<std::int64_t>(scratch_.keys.capacity() / (WORDS * 8));
    }

    BuildScratch& scratch_;
    int id_bits_;
    bool packed_ = false;
    int log2_ = 0;
    std::uint64_t mask_ = 0;
    std::uint64_t* slots_ = nullptr;
    std::uint32_t* numbers_ = nullptr;
    std::uint64_t* keys_ = nullptr;
    std::int64_t key_capacity_ = 0;
    std::int64_t size_ = 0;
};

template <int D, int WORDS>
void find_vertices(const Points& points, const Embedding& e, const Naming& naming, Lattice& lattice,
                   BuildScratch& scratch, Table<WORDS>& table) {
    constexpr int kMax = D > 0 ? D : kMaxDimensions;
    const int d = D > 0 ? D : e.d;
    const std::int64_t n = points.count();
    std::uint32_t* index = lattice.index.reserve<std::uint32_t>(static_cast<std::size_t>(n) * (d + 1));
    float* weight = lattice.weight.reserve<float>(static_cast<std::size_t>(n) * (d + 1));
    Loader loader(points, scratch.sums);

    float f[kMax][kLanes];
    // Two blocks in flight: the slots of one are on their way from memory while the other is looked up.
    std::uint64_t names[2][kMax + 1][WORDS][kLanes];
    float weights[2][kMax + 1][kLanes];
    const std::int64_t blocks = (n + kLanes - 1) / kLanes;
    for (std::int64_t b = 0; b <= blocks; ++b) {
        if (b < blocks) {
            loader.load<D>(f);
            embed<D, WORDS>(e, naming, f, names[b & 1], weights[b & 1]);
            for (int r = 0; r <= d; ++r) {
                for (int l = 0; l < kLanes; ++l) {
                    std::uint64_t name[WORDS];
                    for (int w = 0; w < WORDS; ++w) name[w] = names[b & 1][r][w][l];
                    table.prefetch(name);
                }
            }
        }
        if (b == 0) continue;
        const std::int64_t first = (b - 1) * kLanes;
        const int side = (b - 1) & 1;
        const int count = n - first < kLanes ? static_cast<int>(n - first) : kLanes;
        for (int l = 0; l < count; ++l) {
            for (int r = 0; r <= d; ++r) {
                std::uint64_t name[WORDS];
                for (int w = 0; w < WORDS; ++w) name[w] = names[side][r][w][l];
                index[(first + l) * (d + 1) + r] = table.insert(name);
                weight[(first + l) * (d + 1) + r] = weights[side][r][l];
            }
        }
    }
}

template <int WORDS>
void find_chains(const Naming& naming, const Table<WORDS>& table, Lattice& lattice, BuildScratch& scratch) {
    const int d = lattice.dimensions;
    const std::int64_t m = lattice.vertices;
    constexpr std::uint32_t kNone = Table<WORDS>::kNone;
    std::uint32_t* next = scratch.next.reserve<std::uint32_t>(static_cast<std::size_t>(m));
    std::uint32_t* starts = scratch.starts.reserve<std::uint32_t>(static_cast<std::size_t>(m + 1));
    std::uint8_t* has_previous = scratch.has_previous.reserve<std::uint8_t>(static_cast<std::size_t>(m + 1));
    std::uint32_t* chains = lattice.chains.reserve<std::uint32_t>(static_cast<std::size_t>((m + kLookAhead) * (d + 1)));
    const std::uint64_t low_mask = (std::uint64_t{1} << bits_for(d + 1)) - 1;
    std::int64_t at = 0;
    for (int axis = 0; axis <= d; ++axis) {
        std::uint64_t step[2][WORDS];
        neighbour_step<WORDS>(naming, d, axis, false, step[0]);
        neighbour_step<WORDS>(naming, d, axis, true, step[1]);
        std::memset(has_previous, 0, static_cast<std::size_t>(m));
        const auto neighbour = [&](std::int64_t v, std::uint64_t* name) {
            const std::uint64_t* key = table.key(v);
            const std::uint64_t* s = step[(key[0] & low_mask) == 0];
            for (int w = 0; w < WORDS; ++w) name[w] = key[w] + s[w];
        };
        std::uint64_t name[WORDS];
        for (std::int64_t v = 0; v < m; ++v) {
            if (v + 16 < m) {
                neighbour(v + 16, name);
                table.prefetch(name);
            }
            neighbour(v, name);
            const std::uint32_t u = table.find(name);
            next[v] = u;
            has_previous[u != kNone ? u : m] = 1;
        }
        lattice.chain_begin[axis] = at;
        std::int64_t chains_here = 0;
        for (std::int64_t v = 0; v < m; ++v) {  // without a branch, which would be a guess each time
            starts[chains_here] = static_cast<std::uint32_t>(v);
            chains_here += (has_previous[v] == 0) & (next[v] != kNone);
        }
        for (std::int64_t k = 0; k < chains_here; ++k) {
            std::uint32_t u = starts[k];
            for (; next[u] != kNone; u = next[u]) chains[at++] = u;
            chains[at++] = u | kChainEnd;
        }
        lattice.chain_length[axis] = at - lattice.chain_begin[axis];
        for (std::int64_t i = 0; i < kLookAhead; ++i) chains[at++] = 0;
    }
    lattice.chain_begin[d + 1] = at;
}

template <int D, int WORDS>
void build_words(const Points& points, const Embedding& e, const Naming& naming, Lattice& lattice,
                 BuildScratch& scratch) {
    Table<WORDS> table(scratch, naming, points.count(), e.d + 1);
    find_vertices<D, WORDS>(points, e, naming, lattice, scratch, table);
    lattice.vertices = table.size();
    scratch.last_vertices = table.size();
    find_chains<WORDS>(naming, table, lattice, scratch);
}

}  // namespace

bool build(const Points& points, Lattice& lattice, BuildScratch& scratch) {
    const Embedding e = make_embedding(points.dimensions);
    Naming naming;
    if (!make_naming(points, e, naming)) return false;
    lattice.dimensions = points.dimensions;
    lattice.points = points.count();
    lattice.scale = 1.0f / (1.0f + 1.0f / static_cast<float>(std::uint64_t{1} << points.dimensions));
    if (naming.words == 1) {
        switch (points.dimensions) {
            case 2: build_words<2, 1>(points, e, naming, lattice, scratch); break;
            case 5: build_words<5, 1>(points, e, naming, lattice, scratch); break;
            default: build_words<0, 1>(points, e, naming, lattice, scratch);
        }
    } else if (naming.words == 2) {
        build_words<0, 2>(points, e, naming, lattice, scratch);
    } else {
        build_words<0, kMaxWords>(points, e, naming, lattice, scratch);
    }
    return true;
}

}  // namespace SEGBATCH_ISA
