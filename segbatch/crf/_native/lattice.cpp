#include "lattice.h"

namespace segbatch {

std::uint64_t Lattice::bytes() const {
    return index.capacity() + weight.capacity() + chains.capacity() + norm.capacity() +
           sizeof(Lattice);
}

}  // namespace segbatch
