// Memory of large tensors that stays with the process while it trains: an allocator of torch's CPU tensors.
//
// Each training step frees what the next one allocates again. Returned to the system in between, its pages are cleared again,
// which takes a fifth of a step. Here freed ranges of pages are kept, split and merged, and a request takes the smallest that
// fits. A block may outlive the training: its deleter knows its size.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#endif

namespace seqmem {
namespace {

#ifdef __linux__

constexpr size_t kSmallest = size_t(1) << 20;  // smaller blocks are those of torch's own allocator
constexpr size_t kHugePage = size_t(1) << 21;  // of processors with pages of 4 KiB
constexpr size_t kHugeFrom = size_t(1) << 24;  // blocks of at least this size are placed on huge pages

constexpr size_t whole(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// 4 KiB on most processors; 16 or 64 KiB on some of Arm, where munmap refuses a part of a page.
size_t page() {
  static const size_t size = [] {
    const long found = sysconf(_SC_PAGESIZE);
    return found > 0 ? size_t(found) : size_t(4096);
  }();
  return size;
}

// Ranges of pages: those of live blocks, and idle ones. Of both together there are at most 9/8 of the most that was live at a
// time, so that keeping memory hardly raises the peak. AddressSanitizer reports accesses to idle ranges and behind a block.
class Ranges {
 public:
  // Returns null if the system has no memory.
  char* take(size_t bytes) {
    const size_t size = whole(bytes, bytes >= kHugeFrom ? std::max(kHugePage, page()) : page());
    const auto fit = by_size_.lower_bound({size, nullptr});
    char* begin = nullptr;
    if (fit == by_size_.end()) {
      peak_ = std::max(peak_, live_bytes_ + size);
      const size_t limit = peak_ + peak_ / 8 - live_bytes_ - size;
      trim(limit);
      begin = map(size);
      if (begin == nullptr) return nullptr;
    } else {
      const size_t found = fit->first;
      begin = fit->second;
      remove_idle(begin, found);
      if (found > size) add_idle(begin + size, found - size);
    }
    ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
    ASAN_POISON_MEMORY_REGION(begin + bytes, size - bytes);
    live_.emplace(begin, size);
    live_bytes_ += size;
    peak_ = std::max(peak_, live_bytes_);
    return begin;
  }

  // Returns whether the block is one of these.
  bool give_back(char* begin, bool keep) {
    const auto found = live_.find(begin);
    if (found == live_.end()) return false;
    c10::profiledCPUMemoryReporter().Delete(begin);
    const size_t size = found->second;
    live_.erase(found);
    live_bytes_ -= size;
    if (keep) {
      ASAN_POISON_MEMORY_REGION(begin, size);
      add_idle(begin, size);
    } else {
      unmap(begin, size);
    }
    return true;
  }

  // Returns idle ranges to the system until at most `limit` bytes are idle.
  void trim(size_t limit) {
    while (idle_bytes_ > limit) {
      const auto [size, begin] = *by_size_.rbegin();
      const size_t cut = std::min(size, whole(idle_bytes_ - limit, std::max(kHugePage, page())));
      remove_idle(begin, size);
      if (cut < size) add_idle(begin, size - cut);
      unmap(begin + (size - cut), cut);
    }
  }

  void forget_peak() { peak_ = live_bytes_; }
  size_t live_bytes() const { return live_bytes_; }
  size_t idle_bytes() const { return idle_bytes_; }

 private:
  char* map(size_t size) {
    const auto pages = [&] { return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); };
    void* begin = pages();
    if (begin == MAP_FAILED) {
      trim(0);
      begin = pages();
    }
    if (begin == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
    if (size >= kHugeFrom) madvise(begin, size, MADV_HUGEPAGE);
#endif
    return static_cast<char*>(begin);
  }

  static void unmap(char* begin, size_t size) {
    ASAN_UNPOISON_MEMORY_REGION(begin, size);  // the system may give these addresses to others
    munmap(begin, size);
  }

  void add_idle(char* begin, size_t size) {
    idle_bytes_ += size;
    const auto after = idle_.lower_bound(begin);
    if (after != idle_.end() && begin + size == after->first) {
      size += after->second;
      erase(after);
    }
    const auto next = idle_.lower_bound(begin);
    if (next != idle_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == begin) {
        begin = before->first;
        size += before->second;
        erase(before);
      }
    }
    idle_.emplace(begin, size);
    by_size_.emplace(size, begin);
  }

  void remove_idle(char* begin, size_t size) {
    idle_bytes_ -= size;
    erase(idle_.find(begin));
  }

  void erase(std::map<char*, size_t>::iterator range) {
    by_size_.erase({range->second, range->first});
    idle_.erase(range);
  }

  std::unordered_map<char*, size_t> live_;
  std::map<char*, size_t> idle_;  // by address, no two adjacent
  std::set<std::pair<size_t, char*>> by_size_;
  size_t live_bytes_ = 0, idle_bytes_ = 0, peak_ = 0;
};

// The allocator of torch's CPU tensors from the first training on. Unless anything keeps memory, all blocks are those of torch's
// own allocator. It stays in place and is never destroyed, since blocks may outlive everything.
class KeptMemory final : public c10::Allocator {
 public:
  static KeptMemory& instance() {
    static KeptMemory* const memory = new KeptMemory;
    return *memory;
  }

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes >= kSmallest) {
      if (char* const begin = take(bytes)) {
        c10::profiledCPUMemoryReporter().New(begin, bytes);
        return {begin, begin, &free_block, c10::Device(c10::DeviceType::CPU)};
      }
    }
    return torch_->allocate(bytes);
  }

  // Blocks without a DataPtr are freed by this; torch's operators have some as workspaces.
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }

  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }

  void keep() {
    const std::lock_guard lock(mutex_);
    if (++keepers_ > 1) return;
    ranges_.forget_peak();
    if (!installed_) c10::SetCPUAllocator(this);
    installed_ = true;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    if (keepers_ > 0 && --keepers_ == 0) ranges_.trim(0);
  }

  std::vector<int64_t> bytes() {
    const std::lock_guard lock(mutex_);
    return {int64_t(ranges_.live_bytes()), int64_t(ranges_.idle_bytes())};
  }

 private:
  KeptMemory() : torch_(c10::GetCPUAllocator()) {
    // A forked process has no other thread that could unlock the mutex. It starts without kept memory.
    pthread_atfork(
        [] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
        [] {
          instance().keepers_ = 0;
          instance().ranges_.trim(0);
          instance().mutex_.unlock();
        });
  }

  char* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    return keepers_ > 0 ? ranges_.take(bytes) : nullptr;
  }

  static void free_block(void* block) {
    KeptMemory& memory = instance();
    {
      const std::lock_guard lock(memory.mutex_);
      if (memory.ranges_.give_back(static_cast<char*>(block), memory.keepers_ > 0)) block = nullptr;
    }
    if (block != nullptr) memory.torch_->raw_deallocate(block);
  }

  c10::Allocator* const torch_;
  std::mutex mutex_;
  int64_t keepers_ = 0;
  bool installed_ = false;
  Ranges ranges_;
};

void keep_memory() { KeptMemory::instance().keep(); }
void release_memory() { KeptMemory::instance().release(); }
std::vector<int64_t> kept_memory() { return KeptMemory::instance().bytes(); }

#else

void keep_memory() {}
void release_memory() {}
std::vector<int64_t> kept_memory() { return {0, 0}; }

#endif

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  // Each keep_memory needs a release_memory; kept_memory returns the bytes of live blocks and of idle ranges.
  library.def("keep_memory() -> ()", keep_memory);
  library.def("release_memory() -> ()", release_memory);
  library.def("kept_memory() -> int[]", kept_memory);
}

}  // namespace seqmem
