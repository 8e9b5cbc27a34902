#include "lattice.h"

namespace segbatch {

std::uint64_t Lattice::bytes() const {
    return index.capacity() + weight.capacity() + chains.capacity() + norm.capacity() +
           inverse_splat_mass.capacity() + chain_mass.capacity() + chain_inverse_mass.capacity() +
           slice_weight.capacity() + sizeof(Lattice);
}

}  // namespace segbatch
