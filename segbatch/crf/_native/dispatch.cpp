// Which instruction sets this build has, and which of them this processor runs.

#include <stdexcept>
#include <string>

#include "kernels.h"

#define SEGBATCH_DECLARE(isa)         \
    namespace isa {                   \
    extern const segbatch::Kernels kKernels; \
    }

SEGBATCH_DECLARE(segbatch_baseline)
#if defined(SEGBATCH_HAVE_X86)
SEGBATCH_DECLARE(segbatch_avx2)
SEGBATCH_DECLARE(segbatch_avx512)
#endif

namespace segbatch {

namespace {

const Kernels* const kAll[] = {
#if defined(SEGBATCH_HAVE_X86)
    &segbatch_avx512::kKernels,
    &segbatch_avx2::kKernels,
#endif
    &segbatch_baseline::kKernels,
};

}  // namespace

const Kernels* const* all_kernels(int* count) {
    *count = static_cast<int>(sizeof(kAll) / sizeof(kAll[0]));
    return kAll;
}

const Kernels& kernels_for(const char* isa) {
    const std::string wanted = isa;
    std::string known;
    for (const Kernels* k : kAll) {
        if (wanted.empty() ? k->supported() : wanted == k->name) {
            if (!k->supported()) throw std::invalid_argument("isa is '" + wanted + "', which this processor lacks");
            return *k;
        }
        known += std::string(known.empty() ? "" : ", ") + k->name;
    }
    throw std::invalid_argument("isa is '" + wanted + "'; give one of " + known + ", or '' for the fastest");
}

Layout layout_for(int labels) {
    if (labels > 24) return {32, (labels + 31) / 32};
    return {labels < 4 ? 4 : (labels + 3) / 4 * 4, 1};
}

}  // namespace segbatch
