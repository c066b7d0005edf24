// What threads do to memory. Every load and store of a kernel passes through `access`, which g++
// -fsanitize=thread calls in place of libtsan. See README.md.
#include <stdint.h>

#include "runtime.hpp"

// What the linker knows: the shared variables of the kernels, and the library as a whole.
extern "C" {
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace emu {
namespace {

struct Access {  // by which thread, in which interval between barriers
  int block, thread, interval, turn;
};
struct Shadow {  // of one item of memory
  Access written, read;
  bool is_written, is_read, atomic;
  bool read_by_lanes, read_by_warps, read_by_blocks;  // by others than `read`
};
struct Watched {
  char *start, *end;
  int item;
  const char* name;
  bool shared;
  std::vector<Shadow> shadow;
};

std::vector<Watched> watched;
long long accesses;

// Whether an earlier access is known to be over, because of a barrier or of being one's own.
bool ordered(const Access& a) {
  if (a.block != block) return false;
  if (a.thread == me || a.interval != interval) return true;
  return a.thread / 32 == me / 32 && a.turn != turns[me / 32];
}

void race(const Watched& w, size_t i, const Access& other, const char* what) {
  note("%s: block %d thread %d %s %s[%zu], which block %d thread %d %s, with no barrier between",
       w.shared ? "race in shared memory" : "race", block, me, what, w.name, i, other.block,
       other.thread, what[0] == 'r' ? "wrote" : "used");
}

void check(Watched& w, size_t i, bool write, bool atomic) {
  Shadow& s = w.shadow[i];
  Access mine = {block, me, interval, turns[me / 32]};
  if (s.is_written && !(atomic && s.atomic) && !ordered(s.written))
    return race(w, i, s.written, write ? "writes" : "reads");
  if (write) {
    bool unordered = s.is_read && (!ordered(s.read) || s.read_by_blocks);
    if (s.is_read && s.read.block == block && s.read.interval == interval)
      unordered |= s.read_by_warps || (s.read_by_lanes && s.read.turn == mine.turn);
    if (unordered) return race(w, i, s.read, "writes");
    s.is_written = true;
    s.written = mine;
    s.atomic = atomic;
    return;
  }
  if (w.shared && !s.is_written)
    return note("block %d thread %d reads %s[%zu], which nobody has written", block, me, w.name, i);
  bool same_block = s.is_read && s.read.block == block;
  bool same = same_block && s.read.interval == interval;
  bool lane = same && s.read.thread / 32 == me / 32 && s.read.turn == mine.turn;
  if (s.is_read && !same_block) s.read_by_blocks = true;
  s.read_by_warps = same && (s.read_by_warps || s.read.thread / 32 != me / 32);
  s.read_by_lanes = lane && (s.read_by_lanes || s.read.thread != me);
  s.is_read = true;
  s.read = mine;
}

Watched* find(char* p) {
  static size_t last;
  if (last < watched.size() && p >= watched[last].start && p < watched[last].end)
    return &watched[last];
  for (size_t i = 0; i < watched.size(); i++)
    if (p >= watched[i].start && p < watched[i].end) return &watched[last = i];
  return nullptr;
}

void outside(char* p, int size, bool write) {
  const Watched* near = nullptr;
  size_t best = SIZE_MAX;
  for (const Watched& w : watched) {
    size_t away = p < w.start ? w.start - p : p - w.end;
    if (!w.shared && away < best) best = away, near = &w;
  }
  if (!near) return note("block %d thread %d: a wild access", block, me);
  note("out of bounds: block %d thread %d %s %s[%td] of %td", block, me, write ? "writes" : "reads",
       near->name, (p - near->start) / near->item, (near->end - near->start) / near->item);
}

void access(void* address, int size, bool write, bool atomic = false) {
  char* p = (char*)address;
  if (has_stack(p)) return;
  if (++accesses > 400000000) note("a loop without an end"), give_up();
  Watched* w = find(p);
  if (!w && p >= __ehdr_start && p < _end) return;
  if (!w || p + size > w->end) {
    outside(p, size, write);
    give_up();
  }
  if ((uintptr_t)p % size) note("block %d thread %d: misaligned %s", block, me, w->name);
  for (char* q = p; q < p + size && !failed; q += w->item)
    check(*w, (q - w->start) / w->item, write, atomic);
  if (failed) give_up();
}

}  // namespace

void forget() {
  accesses = 0;
  watched.clear();
  if (__start_emu_shared != __stop_emu_shared)
    watch(__start_emu_shared, __stop_emu_shared - __start_emu_shared, 4, "shared", true);
}

void watch(char* start, size_t bytes, int item, const char* name, bool shared) {
  watched.push_back({start, start + bytes, item, name, shared, std::vector<Shadow>(bytes / item)});
}

void begin_block() {
  for (Watched& w : watched)
    if (w.shared) {
      memset(w.start, 0xff, w.end - w.start);
      w.shadow.assign(w.shadow.size(), Shadow());
    }
}

void atomic_access(void* p, int size) { access(p, size, true, true); }

}  // namespace emu

extern "C" {
void __tsan_init() {}
#define EMU_ACCESS(n)                                            \
  void __tsan_read##n(void* p) { emu::access(p, n, false); }     \
  void __tsan_write##n(void* p) { emu::access(p, n, true); }     \
  void __tsan_unaligned_read##n(void* p) { emu::access(p, n, false); } \
  void __tsan_unaligned_write##n(void* p) { emu::access(p, n, true); }
EMU_ACCESS(1)
EMU_ACCESS(2)
EMU_ACCESS(4)
EMU_ACCESS(8)
EMU_ACCESS(16)
void __tsan_read_range(void* p, long n) { emu::access(p, (int)n, false); }
void __tsan_write_range(void* p, long n) { emu::access(p, (int)n, true); }
void __tsan_vptr_update(void**, void*) {}
}
