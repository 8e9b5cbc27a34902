// Memory for the big arrays: aligned, on huge pages where the system has them, kept for the next image.
#pragma once

#include <cstddef>
#include <cstdint>

namespace segbatch {

// Grows, never shrinks by itself; the contents do not survive a growth.
class Buffer {
public:
    Buffer() = default;
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    // At least `bytes` bytes aligned to a cache line. Throws std::bad_alloc.
    void* reserve(std::size_t bytes);
    void release();
    // Takes memory of someone else for its own, of `bytes` bytes, until it is released or outgrown.
    void borrow(void* data, std::size_t bytes);
    bool borrowed() const { return borrowed_; }
    std::size_t capacity() const { return capacity_; }
    void* data() const { return data_; }

    template <class T>
    T* reserve(std::size_t count) {
        return static_cast<T*>(reserve(count * sizeof(T)));
    }
    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }

private:
    void* data_ = nullptr;
    std::size_t capacity_ = 0;
    bool borrowed_ = false;
};

}  // namespace segbatch
