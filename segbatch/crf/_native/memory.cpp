#include "memory.h"

#include <cstdlib>
#include <fstream>
#include <limits>
#include <new>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace segbatch {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

void* allocate(std::size_t bytes, std::size_t alignment) {
#if defined(_MSC_VER)
    return _aligned_malloc(bytes, alignment);
#else
    return std::aligned_alloc(alignment, bytes);
#endif
}

void deallocate(void* data) {
#if defined(_MSC_VER)
    _aligned_free(data);
#else
    std::free(data);
#endif
}

#if defined(__linux__)
std::uint64_t read_number(const char* path) {
    std::ifstream in(path);
    std::uint64_t value = 0;
    return in >> value ? value : 0;  // "max" and a missing file both read as 0
}
#endif

}  // namespace

Buffer::~Buffer() { release(); }

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    if (this != &other) {
        release();
        data_ = std::exchange(other.data_, nullptr);
        capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
}

void Buffer::release() {
    deallocate(data_);
    data_ = nullptr;
    capacity_ = 0;
}

void* Buffer::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return data_;
    if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
    release();
    // Random access over tens of MiB misses the TLB at every step on 4 KiB pages, and faults them in one by one.
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
    const std::size_t unit = bytes >= kHugePage ? std::size_t{1} << 16 : kLine;
    const std::size_t rounded = (bytes + unit - 1) / unit * unit;
    data_ = allocate((rounded + alignment - 1) / alignment * alignment, alignment);
    if (data_ == nullptr) throw std::bad_alloc();
    capacity_ = rounded;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == kHugePage) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    return data_;
}

std::uint64_t available_memory() {
#if defined(__linux__)
    std::uint64_t available = 0;
    std::ifstream info("/proc/meminfo");
    for (std::string line; std::getline(info, line);) {
        if (line.rfind("MemAvailable:", 0) == 0) available = std::stoull(line.substr(13)) * 1024;
    }
    const std::uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
    const std::uint64_t used = read_number("/sys/fs/cgroup/memory.current");
    if (limit > 0 && (available == 0 || limit - (used < limit ? used : limit) < available)) {
        available = limit - (used < limit ? used : limit);
    }
    return available;
#else
    return 0;
#endif
}

}  // namespace segbatch
