#include "memory.h"

#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#if !defined(__SANITIZE_ADDRESS__)  // which knows the ends of malloc's memory alone
#define SEGBATCH_PAGES
#endif
#endif

namespace segbatch {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Bytes from `data` to the next multiple of `alignment`.
std::size_t gap(const void* data, std::size_t alignment) {
    return (alignment - reinterpret_cast<std::uintptr_t>(data) % alignment) % alignment;
}

// Big arrays bypass malloc: the arena of a thread that did not start the process returns freed ones to the system and
// faults them in again for the next image, for which two threads wait for each other.
void* allocate(std::size_t bytes) {
#if defined(_MSC_VER)
    return _aligned_malloc(bytes, kLine);
#else
#if defined(SEGBATCH_PAGES)
    if (bytes >= kHugePage) {
        // Random access over tens of MiB misses the TLB at every step on 4 KiB pages, and faults them in one by one.
        void* data = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) return nullptr;
        char* const start = static_cast<char*>(data);
        const std::size_t before = gap(start, kHugePage);
        char* const aligned = start + before;
        if (before > 0) munmap(start, before);
        munmap(aligned + bytes, kHugePage - before);
        madvise(aligned, bytes, MADV_HUGEPAGE);
        return aligned;
    }
#endif
    return std::aligned_alloc(kLine, bytes);
#endif
}

void deallocate(void* data, std::size_t bytes) {
    (void)bytes;
#if defined(_MSC_VER)
    _aligned_free(data);
#else
#if defined(SEGBATCH_PAGES)
    if (bytes >= kHugePage) {
        munmap(data, bytes);
        return;
    }
#endif
    std::free(data);
#endif
}

}  // namespace

Buffer::~Buffer() { release(); }

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)),
      borrowed_(std::exchange(other.borrowed_, false)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    if (this != &other) {
        release();
        data_ = std::exchange(other.data_, nullptr);
        capacity_ = std::exchange(other.capacity_, 0);
        borrowed_ = std::exchange(other.borrowed_, false);
    }
    return *this;
}

void Buffer::release() {
    if (!borrowed_) deallocate(data_, capacity_);
    data_ = nullptr;
    capacity_ = 0;
    borrowed_ = false;
}

void Buffer::borrow(void* data, std::size_t bytes) {
    release();
    const std::size_t skipped = gap(data, kLine);
    if (bytes <= skipped) return;
    data_ = static_cast<char*>(data) + skipped;
    capacity_ = bytes - skipped;
    borrowed_ = true;
}

void* Buffer::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return data_;
    if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
    release();
    const std::size_t rounded = round_up(bytes, bytes >= kHugePage ? std::size_t{1} << 16 : kLine);
    data_ = allocate(rounded);
    if (data_ == nullptr) throw std::bad_alloc();
    capacity_ = rounded;
    return data_;
}

}  // namespace segbatch
