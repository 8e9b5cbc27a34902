// The vertices of a lattice by their names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "embedding.h"

namespace SEGBATCH_ISA {

constexpr std::uint64_t kHashFactor = 0x9E3779B97F4A7C15ull;

// Open addressing, linear probing. A slot holds a vertex's number, and its name too where both fit 64 bits.
template <int WORDS>
class Table {
public:
    Table(BuildScratch& scratch, const Naming& naming, std::int64_t points, int corners)
        : scratch_(scratch), id_bits_(bits_for(static_cast<std::uint64_t>(points) * corners + 2)) {
        packed_ = WORDS == 1 && naming.used[0] + id_bits_ <= 64;
        const std::int64_t expected = scratch.last_vertices > 0 ? scratch.last_vertices : points / 2;
        resize_keys(expected + 1024);
        log2_ = 10;
        while ((std::int64_t{1} << log2_) < expected * 2) ++log2_;
        clear();
    }

    std::int64_t size() const { return size_; }
    bool packed() const { return packed_; }

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

    // What a look-up in a packed table reads, as a copy that the compiler may keep in registers.
    struct View {
        std::uint64_t* slots;
        std::uint64_t mask, id_mask;
        int shift, id_bits;
    };
    View view() const { return {slots_, mask_, (std::uint64_t{1} << id_bits_) - 1, 64 - log2_, id_bits_}; }

    // The vertex of that name, which is added if it is new, in a packed table.
    SEGBATCH_INLINE std::uint32_t insert(View& view, std::uint64_t name) {
        const std::uint64_t tag = name << view.id_bits;
        for (std::uint64_t at = (name * kHashFactor) >> view.shift;; at = (at + 1) & view.mask) {
            const std::uint64_t slot = view.slots[at];
            const std::uint64_t id = (slot ^ tag) - 1;  // beyond the mask if the slot is empty or another name's
            if (id < view.id_mask) return static_cast<std::uint32_t>(id);
            if (slot == 0) {
                view.slots[at] = tag | static_cast<std::uint64_t>(size_ + 1);
                const std::uint32_t added = add(&name);
                view = this->view();
                return added;
            }
        }
    }
    // The same in one that is not.
    SEGBATCH_INLINE std::uint32_t insert(const std::uint64_t* name) {
        for (std::uint64_t at = position(name);; at = (at + 1) & mask_) {
            const std::uint32_t slot = numbers_[at];
            if (slot == 0) {
                numbers_[at] = static_cast<std::uint32_t>(size_ + 1);
                return add(name);
            }
            if (equal(slot - 1, name)) return slot - 1;
        }
    }
    const std::uint64_t* key(std::int64_t id) const { return keys_ + id * WORDS; }

private:
    bool equal(std::uint32_t id, const std::uint64_t* name) const {
        const std::uint64_t* k = key(id);
        for (int w = 0; w < WORDS; ++w) {
            if (k[w] != name[w]) return false;
        }
        return true;
    }
    SEGBATCH_NOINLINE std::uint32_t add(const std::uint64_t* name) {
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

}  // namespace SEGBATCH_ISA
