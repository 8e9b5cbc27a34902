#include "cache.h"

#include <list>
#include <mutex>
#include <utility>
#include <vector>

#include "crf.h"

namespace segbatch {

namespace {

constexpr std::size_t kMaxLattices = 16;
constexpr std::uint64_t kMaxLatticeBytes = std::uint64_t{256} << 20;
constexpr std::size_t kMaxIdleWorkspaces = 64;
constexpr std::uint64_t kMaxWorkspaceBytes = std::uint64_t{512} << 20;  // a larger one is freed after use

struct State {
    std::mutex mutex;
    std::list<std::pair<LatticeKey, std::shared_ptr<const Lattice>>> lattices;  // used last comes first
    std::vector<std::unique_ptr<Workspace>> idle;
    std::uint64_t hits = 0, misses = 0;

    std::uint64_t lattice_bytes() const {
        std::uint64_t sum = 0;
        for (const auto& entry : lattices) sum += entry.second->bytes();
        return sum;
    }
};

// Never destroyed: threads of the interpreter may still be at work while the process exits.
State& state() {
    static State* const s = new State;
    return *s;
}

}  // namespace

std::shared_ptr<const Lattice> find_lattice(const LatticeKey& key) {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    for (auto it = s.lattices.begin(); it != s.lattices.end(); ++it) {
        if (it->first == key) {
            s.lattices.splice(s.lattices.begin(), s.lattices, it);
            ++s.hits;
            return s.lattices.front().second;
        }
    }
    ++s.misses;
    return nullptr;
}

void keep_lattice(const LatticeKey& key, std::shared_ptr<const Lattice> lattice) {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.lattices.remove_if([&](const auto& entry) { return entry.first == key; });
    s.lattices.emplace_front(key, std::move(lattice));
    while (s.lattices.size() > kMaxLattices || s.lattice_bytes() > kMaxLatticeBytes) s.lattices.pop_back();
}

WorkspaceLease::WorkspaceLease() {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.idle.empty()) {
        workspace_ = std::make_unique<Workspace>();
    } else {
        workspace_ = std::move(s.idle.back());
        s.idle.pop_back();
    }
}

WorkspaceLease::~WorkspaceLease() {
    if (workspace_->bytes() > kMaxWorkspaceBytes) return;
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.idle.size() < kMaxIdleWorkspaces) s.idle.push_back(std::move(workspace_));
}

CacheInfo cache_info() {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    CacheInfo info;
    info.lattices = s.lattices.size();
    info.lattice_bytes = s.lattice_bytes();
    info.hits = s.hits;
    info.misses = s.misses;
    info.workspaces = s.idle.size();
    for (const auto& w : s.idle) info.workspace_bytes += w->bytes();
    return info;
}

void clear_cache() {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.lattices.clear();
    s.idle.clear();
}

}  // namespace segbatch
