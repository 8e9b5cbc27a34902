// The functions of one instruction set, gathered for the choice at run time.

#include "isa.h"

namespace SEGBATCH_ISA {

extern const segbatch::Kernels kKernels;

static bool supported() {
#if defined(SEGBATCH_NEEDS_AVX512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
#elif defined(SEGBATCH_NEEDS_AVX2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

#define SEGBATCH_STRING_(x) #x
#define SEGBATCH_STRING(x) SEGBATCH_STRING_(x)

const segbatch::Kernels kKernels = {
    SEGBATCH_STRING(SEGBATCH_NAME), supported, build, normalize, pass, blur, rows_from_planes, planes_from_rows,
    rows_from_coarse, upsample, label_probability, peaks, energies,
};

}  // namespace SEGBATCH_ISA
