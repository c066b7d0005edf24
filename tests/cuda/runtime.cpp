// Runs a kernel's blocks one after another, each thread a fiber that runs until it waits. Every load
// and store of the kernel passes through `access`: g++ -fsanitize=thread calls it. See README.md.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "shim.hpp"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// What the linker knows: the shared variables of the kernels, and the library as a whole.
extern "C" {
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace emu {
namespace {

enum State { READY, WARP, BLOCK, DONE };

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started;
  State state;
  int line;
  unsigned mask;  // of the warp operation that it waits in
  bool vote;
  int source, size;
  const void* mine;
  void* out;
  unsigned votes;
};

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

const size_t STACK = 64 * 1024;
const int LIMIT = 1024;  // threads of a block
std::vector<Fiber> fibers;
char* stacks;
jmp_buf scheduler;
Fiber* current;
int me, block, interval;
std::vector<int> turns;  // of each warp: how many __syncwarp it has passed
std::vector<Watched> watched;
std::vector<char> dynamic_shared;
Launch* now;
bool failed;
void (*kernel)(void**);
void** arguments;
long long accesses;

void leave() {
  if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

void note(const char* format, ...) {
  if (failed) return;
  failed = true;
  va_list list;
  va_start(list, format);
  vsnprintf(now->message, 400, format, list);
  va_end(list);
}

void wait(State state, int line) {
  current->state = state;
  current->line = line;
  leave();
}

[[noreturn]] void give_up() {
  for (;;) leave();
}

void entry() {
  for (;;) {
    kernel(arguments);
    current->state = DONE;
    leave();
  }
}

void resume(Fiber& f, int i) {
  current = &f;
  me = i;
  threadIdx.x = i % blockDim.x;
  threadIdx.y = i / blockDim.x % blockDim.y;
  threadIdx.z = i / (blockDim.x * blockDim.y);
  if (!_setjmp(scheduler)) {
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    setcontext(&f.start);
  }
  current = nullptr;
}

void new_fibers() {
  if (!stacks)
    stacks = (char*)mmap(nullptr, STACK * LIMIT, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  fibers.assign(LIMIT, Fiber());
  for (int i = 0; i < LIMIT; i++) {
    Fiber& f = fibers[i];
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = stacks + STACK * i;
    f.start.uc_stack.ss_size = STACK;
    f.start.uc_link = nullptr;
    makecontext(&f.start, entry, 0);
  }
}

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
  if (!current || (p >= stacks && p < stacks + STACK * LIMIT)) return;
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

void watch(char* start, size_t bytes, int item, const char* name, bool shared) {
  watched.push_back({start, start + bytes, item, name, shared, std::vector<Shadow>(bytes / item)});
}

// All threads wait or are done. Lanes that wait in one operation of their warp go on.
bool release_warps(int threads) {
  bool any = false;
  for (int w = 0; w < threads && !failed; w += 32) {
    int end = w + 32 < threads ? w + 32 : threads;
    for (int i = w; i < end; i++) {
      const Fiber& f = fibers[i];
      if (f.state != WARP) continue;
      if (!(f.mask >> (i - w) & 1))
        note("thread %d is not in the mask of its warp operation, line %d", i, f.line);
      for (int k = w; k < w + 32; k++) {
        if (!(f.mask >> (k - w) & 1)) continue;
        const char* why = k >= end ? "is not there" : nullptr;
        if (!why && fibers[k].state == DONE) why = "has returned";
        if (!why && fibers[k].state == BLOCK) why = "waits at __syncthreads";
        if (!why && (fibers[k].line != f.line || fibers[k].mask != f.mask)) why = "waits elsewhere";
        if (why)
          note("divergent warp: block %d thread %d %s, but is in the mask of thread %d, line %d",
               block, k, why, i, f.line);
      }
    }
    if (failed) return false;
    unsigned votes = 0;
    for (int i = w; i < end; i++)
      if (fibers[i].state == WARP && fibers[i].vote) votes |= 1u << (i - w);
    for (int i = w; i < end; i++) {
      Fiber& f = fibers[i];
      if (f.state != WARP) continue;
      f.votes = votes & f.mask;
      int from = f.source >= 0 && f.source < 32 ? f.source : i - w;
      if (f.out) {
        if (!(f.mask >> from & 1)) {
          note("thread %d reads lane %d, which is not in its mask, line %d", i, from, f.line);
          return false;
        }
        memcpy(f.out, fibers[w + from].mine, f.size);
      }
    }
    bool synced = false;
    for (int i = w; i < end; i++) {
      if (fibers[i].state != WARP) continue;
      synced |= fibers[i].out == nullptr;
      fibers[i].state = READY;
      any = true;
    }
    turns[w / 32] += synced;
  }
  return any;
}

// All threads that go on wait at __syncthreads; false where none does.
bool release_block(int threads) {
  int waits = -1, done = -1, other = -1;
  for (int i = 0; i < threads; i++) {
    if (fibers[i].state == DONE) done = i;
    if (fibers[i].state != BLOCK) continue;
    if (waits >= 0 && fibers[i].line != fibers[waits].line) other = i;
    waits = i;
  }
  if (waits < 0) return false;
  if (done >= 0)
    note("divergent barrier: block %d thread %d has returned, thread %d waits, line %d", block, done,
         waits, fibers[waits].line);
  if (other >= 0)
    note("divergent barrier: block %d threads wait at lines %d and %d", block, fibers[other].line,
         fibers[waits].line);
  bool any = false;
  for (int i = 0; i < threads; i++) any |= fibers[i].state == BLOCK && fibers[i].vote;
  for (int i = 0; i < threads; i++) {
    fibers[i].state = fibers[i].state == BLOCK ? READY : DONE;
    fibers[i].votes = any;
  }
  interval++;
  return true;
}

void run_block(int threads) {
  interval = 0;
  turns.assign(threads / 32 + 1, 0);
  for (Watched& w : watched)
    if (w.shared) {
      memset(w.start, 0xff, w.end - w.start);
      w.shadow.assign(w.shadow.size(), Shadow());
    }
  for (int i = 0; i < threads; i++) fibers[i].state = READY;
  do {
    for (int q = 0; q < threads && !failed; q++) {
      int i = now->reverse ? threads - 1 - q : q;
      if (fibers[i].state == READY) resume(fibers[i], i);
    }
  } while (!failed && (release_warps(threads) || (!failed && release_block(threads))));
}

}  // namespace

int launch(Launch& l, void (*call)(void**), void** args) {
  now = &l, kernel = call, arguments = args;
  accesses = 0, failed = false, current = nullptr;
  gridDim = {l.grid[0], l.grid[1], l.grid[2]};
  blockDim = {l.block[0], l.block[1], l.block[2]};
  if (fibers.empty()) new_fibers();
  watched.clear();
  for (int i = 0; i < l.regions; i++)
    watch(l.region[i].start, l.region[i].bytes, l.region[i].item, l.region[i].name, false);
  dynamic_shared.resize(l.shared + 16);
  if (l.shared) watch(dynamic(), l.shared, 4, "shared", true);
  if (__start_emu_shared != __stop_emu_shared)
    watch(__start_emu_shared, __stop_emu_shared - __start_emu_shared, 4, "shared", true);
  int blocks = l.grid[0] * l.grid[1] * l.grid[2];
  for (int q = 0; q < blocks && !failed; q++) {
    block = l.reverse ? blocks - 1 - q : q;
    blockIdx = {block % l.grid[0], block / l.grid[0] % l.grid[1], block / (l.grid[0] * l.grid[1])};
    run_block(l.block[0] * l.block[1] * l.block[2]);
  }
  if (failed) fibers.clear();  // some are in the middle of the kernel
  return failed;
}

void barrier(int line) { barrier_any(line, false); }

bool barrier_any(int line, bool vote) {
  current->vote = vote;
  wait(BLOCK, line);
  return current->votes;
}

void warp(int line, unsigned mask, const void* mine, void* out, int size, int source) {
  Fiber& f = *current;
  f.mask = mask, f.mine = mine, f.out = out, f.size = size, f.source = source, f.vote = false;
  wait(WARP, line);
}

unsigned ballot(int line, unsigned mask, bool vote) {
  Fiber& f = *current;
  f.mask = mask, f.out = nullptr, f.source = 0, f.vote = vote;
  wait(WARP, line);
  return f.votes;
}

void atomic(void* p, int size) {
  now->atomics = 1;
  access(p, size, true, true);
}

int lane() { return me % 32; }

char* dynamic() { return (char*)(((uintptr_t)dynamic_shared.data() + 15) & ~(uintptr_t)15); }

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
