// What each instruction set's files define for one another and for the choice among them.
#pragma once

#include "kernels.h"

namespace SEGBATCH_ISA {

bool build(const segbatch::Points& points, segbatch::Lattice& lattice, segbatch::BuildScratch& scratch);
void normalize(segbatch::Normalization kind, segbatch::Lattice& lattice, segbatch::BuildScratch& scratch);
void pass(const segbatch::Pass& pass);
void blur(const segbatch::Term& term, int padded, int blocks);
void rows_from_planes(const float* planes, std::int64_t height, std::int64_t width, int labels, int padded, float* rows);
void planes_from_rows(const float* rows, std::int64_t height, std::int64_t width, int labels, int padded,
                      float* planes);
void rows_from_coarse(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height,
                      std::int64_t width, int labels, int padded, float* cells, float* rows);
void upsample(const float* coarse, std::int64_t h, std::int64_t w, int stride, std::int64_t height, std::int64_t width,
              int labels, float* planes);
void label_probability(const float* coarse, std::int64_t h, std::int64_t w, int stride, const std::int32_t* chosen,
                       std::int64_t height, std::int64_t width, int labels, float* out);
void peaks(const float* planes, segbatch::Evidence kind, const std::uint8_t* ignore, std::int64_t points, int labels,
           float* peaks);
void energies(const float* planes, segbatch::Evidence kind, const std::uint8_t* ignore, std::int64_t points,
              const std::int32_t* keep, int kept, float* energies);

}  // namespace SEGBATCH_ISA
