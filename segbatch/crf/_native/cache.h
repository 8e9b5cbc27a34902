// Lattices that depend on the size of the image alone, kept from one image to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <tuple>

#include "lattice.h"

namespace segbatch {

using LatticeKey = std::tuple<std::int64_t, std::int64_t, float, float, Normalization>;

// Null if there is none.
std::shared_ptr<const Lattice> find_lattice(const LatticeKey& key);
// Keeps it, and drops those that were used longest ago while there are more than 16 or more than 256 MiB.
void keep_lattice(const LatticeKey& key, std::shared_ptr<const Lattice> lattice);

}  // namespace segbatch
