// Where points lie in the permutohedral lattice, and how its vertices are named (Adams, Baek, Davis 2010, section 3.1).
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lattice.h"
#include "simd.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

constexpr int kLanes = 16;  // points embedded at once
constexpr int kMaxWords = kMaxDimensions / 2 + 1;

// A vertex is named by its first d coordinates, which all have the same remainder modulo d + 1: the quotients, each
// in its own field of bits, and the remainder in the lowest field. Neighbours differ by a constant.
struct Naming {
    int words = 1;
    int word[kMaxDimensions];              // where the quotient's field is
    int shift[kMaxDimensions];
    int used[kMaxWords];                   // bits of each word
    std::int32_t lowest[kMaxDimensions];   // quotient that the field's 0 stands for
};

constexpr float kMaxQuotient = 2097152.0f;  // 2^21: beyond it a float no longer tells neighbouring cells apart

inline int bits_for(std::uint64_t values) {
    int bits = 1;
    while ((std::uint64_t{1} << bits) < values) ++bits;
    return bits;
}

struct Embedding {
    int d;
    float scale[kMaxDimensions];
};

inline Embedding make_embedding(int d) {
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
inline bool make_naming(const Points& points, const Embedding& e, Naming& naming) {
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
            naming.used[word++] = used;
            used = 0;
        }
        naming.word[i] = word;
        naming.shift[i] = used;
        used += bits;
    }
    naming.words = word + 1;
    naming.used[word] = used;
    for (int w = naming.words; w < kMaxWords; ++w) naming.used[w] = 0;  // a name may have more words than it needs
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
        }
    }
    // Rank of each coordinate's rest; on a tie the later coordinate comes first. Each pair is compared twice, once for
    // either rank: compilers do not turn a loop into vectors that writes to both.
    for (int i = 0; i <= d; ++i) {
        std::int32_t above[kLanes] = {};
        for (int j = 0; j < i; ++j) {
            for (int l = 0; l < kLanes; ++l) above[l] += static_cast<std::int32_t>(rest[j][l] >= rest[i][l]);
        }
        for (int j = i + 1; j <= d; ++j) {
            for (int l = 0; l < kLanes; ++l) above[l] += static_cast<std::int32_t>(rest[j][l] > rest[i][l]);
        }
        std::memcpy(rank[i], above, sizeof(above));
    }
    // Back onto the plane.
    for (int i = 0; i <= d; ++i) {
        for (int l = 0; l < kLanes; ++l) {
            const std::int32_t r = rank[i][l] + off[l];
            const std::int32_t step = static_cast<std::int32_t>(r < 0) - static_cast<std::int32_t>(r > d);
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

}  // namespace SEGBATCH_ISA
