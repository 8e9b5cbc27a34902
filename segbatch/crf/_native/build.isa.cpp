// Building a lattice. Compiled once for each instruction set, without contraction of multiply and add: the vertex a
// point falls on must not depend on the processor (nor differ from the reference's, on which agreement rests).

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "isa.h"
#include "vertex_table.h"

namespace SEGBATCH_ISA {

namespace {

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
        std::uint32_t* const vertex = index + first * (d + 1);
        float* const share = weight + first * (d + 1);
        if (WORDS == 1 && table.packed()) {
            typename Table<WORDS>::View view = table.view();
            for (int l = 0; l < count; ++l) {
                for (int r = 0; r <= d; ++r) vertex[l * (d + 1) + r] = table.insert(view, names[side][r][0][l]);
            }
        } else {
            for (int l = 0; l < count; ++l) {
                for (int r = 0; r <= d; ++r) {
                    std::uint64_t name[WORDS];
                    for (int w = 0; w < WORDS; ++w) name[w] = names[side][r][w][l];
                    vertex[l * (d + 1) + r] = table.insert(name);
                }
            }
        }
        for (int l = 0; l < count; ++l) {
            for (int r = 0; r <= d; ++r) share[l * (d + 1) + r] = weights[side][r][l];
        }
    }
}

constexpr std::uint32_t kNone = 0xFFFFFFFFu;

template <int WORDS>
struct Named {
    std::uint64_t name[WORDS];
    std::uint32_t id;
};

// The vertices by remainder, then quotients (a radix sort), and behind them one that is greater than any. `first`
// receives where each remainder begins. Takes the place of the table, but not of its keys.
template <int WORDS>
const Named<WORDS>* sort_names(const Naming& naming, const Table<WORDS>& table, int d, BuildScratch& scratch,
                               std::int64_t* first) {
    constexpr int kDigit = 10;  // bits
    const std::int64_t m = table.size();
    const int low = bits_for(d + 1);
    Named<WORDS>* from = scratch.table.template reserve<Named<WORDS>>(static_cast<std::size_t>(2 * (m + 1)));
    Named<WORDS>* to = from + m + 1;
    for (int r = 0; r <= d + 1; ++r) first[r] = 0;
    for (std::int64_t v = 0; v < m; ++v) {
        for (int w = 0; w < WORDS; ++w) from[v].name[w] = table.key(v)[w];
        const std::uint64_t remainder = from[v].name[0] & ((std::uint64_t{1} << low) - 1);
        from[v].name[0] = from[v].name[0] >> low | remainder << (naming.used[0] - low);
        from[v].id = static_cast<std::uint32_t>(v);
        ++first[remainder + 1];
    }
    for (int r = 0; r <= d; ++r) first[r + 1] += first[r];
    for (int w = WORDS - 1; w >= 0; --w) {
        for (int shift = 0; shift < naming.used[w]; shift += kDigit) {
            const auto digit = [&](const Named<WORDS>& v) { return v.name[w] >> shift & ((1 << kDigit) - 1); };
            std::uint32_t place[1 << kDigit] = {}, sum = 0;
            for (std::int64_t i = 0; i < m; ++i) ++place[digit(from[i])];
            for (std::uint32_t& p : place) {
                const std::uint32_t count = p;
                p = sum;
                sum += count;
            }
            for (std::int64_t i = 0; i < m; ++i) to[place[digit(from[i])]++] = from[i];
            std::swap(from, to);
        }
    }
    for (int w = 0; w < WORDS; ++w) from[m].name[w] = ~std::uint64_t{0};
    from[m].id = kNone;
    return from;
}

// Difference between the sorted name of a vertex and that of its neighbour up an axis. All coordinates go down by one
// and that of the axis up by d: the remainder goes down by one, or, where it is 0 (`wraps`), to d.
template <int WORDS>
void neighbour_step(const Naming& naming, int d, int axis, bool wraps, std::uint64_t* step) {
    const int low = bits_for(d + 1);
    const std::uint64_t one = std::uint64_t{1} << (naming.used[0] - low);  // of the remainder
    for (int w = 0; w < WORDS; ++w) step[w] = 0;
    step[0] = wraps ? one * static_cast<std::uint64_t>(d) : 0 - one;
    for (int i = 0; i < d; ++i) {
        const int w = WORDS == 1 ? 0 : naming.word[i];
        const std::uint64_t unit = std::uint64_t{1} << (naming.shift[i] - (w == 0 ? low : 0));
        if (wraps) step[w] -= unit;
        if (i == axis) step[w] += unit;
    }
}

// The neighbours along each axis, by merging the sorted names with the same a step further: faster than 6 look-ups a
// vertex in a table that is larger than the cache.
template <int WORDS>
void find_chains(const Naming& naming, const Table<WORDS>& table, Lattice& lattice, BuildScratch& scratch) {
    const int d = lattice.dimensions;
    const std::int64_t m = lattice.vertices;
    std::uint32_t* next = scratch.next.reserve<std::uint32_t>(static_cast<std::size_t>(m));
    std::uint32_t* starts = scratch.starts.reserve<std::uint32_t>(static_cast<std::size_t>(m + 1));
    std::uint8_t* has_previous = scratch.has_previous.reserve<std::uint8_t>(static_cast<std::size_t>(m + 1));
    std::uint32_t* chains = lattice.chains.reserve<std::uint32_t>(static_cast<std::size_t>((m + kLookAhead) * (d + 1)));
    std::int64_t first[kMaxDimensions + 2];
    const Named<WORDS>* const sorted = sort_names(naming, table, d, scratch, first);
    // The vertices from `v` to `end` and, from `u` on, those that may be their neighbours. Without a branch but the
    // loop's: which of the two goes on would be a guess each time.
    const auto merge = [&](std::int64_t v, std::int64_t end, std::int64_t u, const std::uint64_t* step) {
        while (v < end) {
            bool less = false, greater = false;
            for (int w = 0; w < WORDS; ++w) {
                const std::uint64_t wanted = sorted[v].name[w] + step[w], given = sorted[u].name[w];
                const bool equal = !(less | greater);
                less |= equal & (wanted < given);
                greater |= equal & (wanted > given);
            }
            const std::uint32_t neighbour = less | greater ? kNone : sorted[u].id;
            next[sorted[v].id] = neighbour;
            has_previous[neighbour != kNone ? neighbour : m] = 1;
            v += !greater;
            u += !less;
        }
    };
    std::int64_t at = 0;
    for (int axis = 0; axis <= d; ++axis) {
        std::uint64_t down[WORDS], wrap[WORDS];
        neighbour_step<WORDS>(naming, d, axis, false, down);
        neighbour_step<WORDS>(naming, d, axis, true, wrap);
        std::memset(has_previous, 0, static_cast<std::size_t>(m));
        merge(first[1], m, 0, down);
        merge(0, first[1], first[d], wrap);
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
