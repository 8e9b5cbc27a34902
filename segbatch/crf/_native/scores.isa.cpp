// Scores on their way into the model: probabilities and logits to energies, planes to rows, coarse to fine.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "isa.h"
#include "simd.h"

namespace SEGBATCH_ISA {

using namespace segbatch;

namespace {

typedef Vec<8> V;
constexpr int kTile = 64;  // points handled at once in planes
// Rows follow each other down a column of a strip (see Walk), so that a few columns at a time are turned.
constexpr std::int64_t kColumns = 8;
// What no label can have; energies are clamped far from it, where they decide a pixel as surely as any larger number.
constexpr float kPadding = -1e30f;
constexpr float kLargest = 1e25f;
constexpr float kSurest = 80.0f;  // e to this power is a float, and the inverse of it as good as nothing

SEGBATCH_INLINE float clamp(float x) { return x > kLargest ? kLargest : x < -kLargest ? -kLargest : x; }

// Natural logarithm of normal numbers above 0, relative error about 1e-7 (Cephes' polynomial).
SEGBATCH_INLINE V log(V x) {
    V e = x.exponent();
    V m = x.mantissa();  // in [0.5, 1)
    const V one = V::all(1.0f), root_half = V::all(0.70710678f);
    // Below the root of a half, double the mantissa: both then lie around 1.
    const V high = one.where_ge(m, root_half);
    e = e - (one - high);
    m = (m + (m - m * high)) - one;
    V p = V::all(7.0376836292e-2f);
    p = p * m + V::all(-1.1514610310e-1f);
    p = p * m + V::all(1.1676998740e-1f);
    p = p * m + V::all(-1.2420140846e-1f);
    p = p * m + V::all(1.4249322787e-1f);
    p = p * m + V::all(-1.6668057665e-1f);
    p = p * m + V::all(2.0000714765e-1f);
    p = p * m + V::all(-2.4999993993e-1f);
    p = p * m + V::all(3.3333331174e-1f);
    const V z = m * m;
    V y = m * z * p + e * V::all(-2.12194440e-4f) - V::all(0.5f) * z;
    return m + y + e * V::all(0.693359375f);
}

// A tile of one plane, padded with its last value.
SEGBATCH_INLINE void load_tile(const float* plane, int count, float* tile) {
    std::memcpy(tile, plane, sizeof(float) * static_cast<std::size_t>(count));
    for (int t = count; t < kTile; ++t) tile[t] = plane[count - 1];
}

struct Axis {
    std::int64_t low, high;
    float share;  // of `high`
};

// Where pixel i lies among cells whose centres are at (c + 0.5) * stride - 0.5; beyond the outer centres, on them.
SEGBATCH_INLINE Axis locate(std::int64_t i, int stride, std::int64_t cells) {
    const float at = (static_cast<float>(i) + 0.5f) / static_cast<float>(stride) - 0.5f;
    if (at <= 0.0f) return {0, 0, 0.0f};
    const std::int64_t low = static_cast<std::int64_t>(at);
    if (low >= cells - 1) return {cells - 1, cells - 1, 0.0f};
    return {low, low + 1, at - static_cast<float>(low)};
}

// A row of coarse cells (labels, plane values at `row`) to (w, padded), the labels of a cell side by side.
SEGBATCH_INLINE void turn_row(const float* coarse, std::int64_t h, std::int64_t w, int labels, int padded,
                              std::int64_t row, float* cells) {
    for (std::int64_t x = 0; x < w; ++x) {
        for (int l = 0; l < padded; ++l) {
            cells[x * padded + l] = l < labels ? clamp(coarse[(l * h + row) * w + x]) : kPadding;
        }
    }
}

}  // namespace

void rows_from_planes(const float* planes, std::int64_t height, std::int64_t width, int labels, int padded,
                      float* rows) {
    for (std::int64_t top = 0; top < height; top += Walk::kStrip) {
        const std::int64_t deep = Walk::rows_from(top, height);
        for (std::int64_t left = 0; left < width; left += kColumns) {
            const int count = static_cast<int>(width - left < kColumns ? width - left : kColumns);
            for (std::int64_t y = 0; y < deep; ++y) {
                const float* from = planes + (top + y) * width + left;
                float* to = rows + (top * width + left * deep + y) * padded;
                for (int l = 0; l < labels; ++l, from += height * width) {
                    for (int t = 0; t < count; ++t) to[t * deep * padded + l] = -clamp(from[t]);
                }
                for (int t = 0; t < count; ++t) {
                    for (int l = labels; l < padded; ++l) to[t * deep * padded + l] = kPadding;
                }
            }
        }
    }
}

void planes_from_rows(const float* rows, std::int64_t height, std::int64_t width, int labels, int padded,
                      float* planes) {
    for (std::int64_t top = 0; top < height; top += Walk::kStrip) {
        const std::int64_t deep = Walk::rows_from(top, height);
        for (std::int64_t left = 0; left < width; left += kColumns) {
            const int count = static_cast<int>(width - left < kColumns ? width - left : kColumns);
            for (std::int64_t y = 0; y < deep; ++y) {
                const float* from = rows + (top * width + left * deep + y) * padded;
                float* to = planes + (top + y) * width + left;
                for (int l = 0; l < labels; ++l, to += height * width) {
                    for (int t = 0; t < count; ++t) to[t] = from[t * deep * padded + l];
                }
            }
        }
    }
}

void rows_from_coarse(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height,
                      std::int64_t width, int labels, int padded, float* cells, float* rows) {
    for (std::int64_t c = 0; c < h * w; ++c) {
        for (int l = 0; l < padded; ++l) cells[c * padded + l] = l < labels ? clamp(coarse[l * h * w + c]) : kPadding;
    }
    for (std::int64_t y = 0; y < height; ++y) {
        const std::int64_t top = y / Walk::kStrip * Walk::kStrip;
        const std::int64_t deep = Walk::rows_from(top, height);
        const Axis v = locate(y, stride, h);
        const float* upper = cells + v.low * w * padded;
        const float* lower = cells + v.high * w * padded;
        for (std::int64_t x = 0; x < width; ++x) {
            const Axis u = locate(x, stride, w);
            const float a = (1.0f - v.share) * (1.0f - u.share), b = (1.0f - v.share) * u.share;
            const float c = v.share * (1.0f - u.share), d = v.share * u.share;
            const float* p = upper + u.low * padded;
            const float* q = upper + u.high * padded;
            const float* r = lower + u.low * padded;
            const float* s = lower + u.high * padded;
            float* out = rows + (top * width + x * deep + (y - top)) * padded;
            for (int l = 0; l < padded; ++l) out[l] = a * p[l] + b * q[l] + c * r[l] + d * s[l];
        }
    }
}

void upsample(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height, std::int64_t width,
              int labels, float* planes) {
    Buffer buffer;
    float* line = buffer.reserve<float>(static_cast<std::size_t>(w) + 1);
    for (int l = 0; l < labels; ++l) {
        const float* plane = coarse + l * h * w;
        for (std::int64_t y = 0; y < height; ++y) {
            const Axis v = locate(y, stride, h);
            for (std::int64_t x = 0; x < w; ++x) {
                line[x] = plane[v.low * w + x] * (1.0f - v.share) + plane[v.high * w + x] * v.share;
            }
            float* out = planes + (l * height + y) * width;
            std::int64_t x = 0;
            for (; x < width; ++x) {
                const Axis u = locate(x, stride, w);
                out[x] = line[u.low] * (1.0f - u.share) + line[u.high] * u.share;
            }
        }
    }
}

void label_probability(const float* coarse, std::int64_t h, std::int64_t w, int stride, const std::int32_t* chosen,
                       std::int64_t height, std::int64_t width, int labels, float* out) {
    const int padded = (labels + 7) / 8 * 8;
    const std::int64_t length = w * padded;
    Buffer buffer, of_columns;
    float* upper = buffer.reserve<float>(static_cast<std::size_t>(3 * length));
    float *lower = upper + length, *line = lower + length;
    Axis* columns = of_columns.reserve<Axis>(static_cast<std::size_t>(width));
    for (std::int64_t x = 0; x < width; ++x) columns[x] = locate(x, stride, w);
    Axis held = {-1, -1, 0.0f};  // the rows of cells in `upper` and `lower`
    for (std::int64_t y = 0; y < height; ++y) {
        const Axis v = locate(y, stride, h);
        if (v.low != held.low) turn_row(coarse, h, w, labels, padded, v.low, upper);
        if (v.high != held.high) turn_row(coarse, h, w, labels, padded, v.high, lower);
        held = v;
        for (std::int64_t i = 0; i < length; ++i) line[i] = upper[i] * (1.0f - v.share) + lower[i] * v.share;
        for (std::int64_t x = 0; x < width; ++x) {
            const Axis u = columns[x];
            const float *p = line + u.low * padded, *q = line + u.high * padded;
            const int c = chosen[y * width + x];
            const V score = V::all(p[c] * (1.0f - u.share) + q[c] * u.share);
            const V near = V::all(1.0f - u.share), far = V::all(u.share), zero = V::all(0.0f);
            V sum = zero;  // of exp(score of a label - score of the chosen one): no highest score has to be found first
            for (int l = 0; l < padded; l += 8) {
                const V behind = score - (V::load(p + l) * near + V::load(q + l) * far);
                sum = sum + exp(zero - max(behind, V::all(-kSurest)));
            }
            const float total = sum.total();
            out[y * width + x] = total > 1.0f ? 1.0f / total : 1.0f;
        }
    }
}

void peaks(const float* planes, Evidence kind, const std::uint8_t* ignore, std::int64_t points, int labels,
           float* peaks) {
    Buffer buffer;
    float* tile = buffer.reserve<float>(static_cast<std::size_t>(labels) * kTile);
    for (int l = 0; l < labels; ++l) peaks[l] = 0.0f;
    for (std::int64_t first = 0; first < points; first += kTile) {
        const int count = points - first < kTile ? static_cast<int>(points - first) : kTile;
        alignas(64) float share[kTile], most[kTile];
        for (int l = 0; l < labels; ++l) load_tile(planes + l * points + first, count, tile + l * kTile);
        const float sign = kind == Evidence::kUnary ? -1.0f : 1.0f;
        for (int t = 0; t < kTile; ++t) share[t] = 1.0f;
        if (kind != Evidence::kProbs) {
            for (int t = 0; t < kTile; t += 8) {
                const V s = V::all(sign);
                V top = V::load(tile + t) * s;
                for (int l = 1; l < labels; ++l) top = max(top, V::load(tile + l * kTile + t) * s);
                V sum = V::all(0.0f);
                for (int l = 0; l < labels; ++l) {
                    const V e = exp(V::load(tile + l * kTile + t) * s - top);
                    e.store(tile + l * kTile + t);
                    sum = sum + e;
                }
                sum.store(most + t);
            }
            for (int t = 0; t < kTile; ++t) share[t] = 1.0f / most[t];
        }
        if (ignore != nullptr) {
            for (int t = 0; t < count; ++t) share[t] = ignore[first + t] ? 0.0f : share[t];
            for (int t = count; t < kTile; ++t) share[t] = share[count - 1];
        }
        for (int l = 0; l < labels; ++l) {
            V top = V::load(tile + l * kTile) * V::load(share);
            for (int t = 8; t < kTile; t += 8) top = max(top, V::load(tile + l * kTile + t) * V::load(share + t));
            const float p = top.highest();
            peaks[l] = p > peaks[l] ? p : peaks[l];
        }
    }
}

void energies(const float* planes, Evidence kind, const std::uint8_t* ignore, std::int64_t points,
              const std::int32_t* keep, int kept, float* energies) {
    const V low = V::all(1e-5f), one = V::all(1.0f), zero = V::all(0.0f);
    for (int k = 0; k < kept; ++k) {
        const float* plane = planes + static_cast<std::int64_t>(keep[k]) * points;
        float* out = energies + static_cast<std::int64_t>(k) * points;
        for (std::int64_t first = 0; first < points; first += kTile) {
            const int count = points - first < kTile ? static_cast<int>(points - first) : kTile;
            alignas(64) float tile[kTile];
            load_tile(plane + first, count, tile);
            for (int t = 0; t < kTile; t += 8) {
                V x = V::load(tile + t);
                if (kind == Evidence::kProbs) {
                    const V p = max(x, low);
                    x = zero - log(p - (p - one).where_ge(p, one));
                } else if (kind == Evidence::kLogits) {
                    x = zero - x;
                }
                x.store(tile + t);
            }
            if (ignore != nullptr) {
                for (int t = 0; t < count; ++t) tile[t] = ignore[first + t] ? 0.0f : tile[t];
            }
            std::memcpy(out + first, tile, sizeof(float) * static_cast<std::size_t>(count));
        }
    }
}

}  // namespace SEGBATCH_ISA
