// Runs a kernel's blocks one after another, each thread a fiber that runs until it waits.
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "runtime.hpp"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

int me, block, interval;
std::vector<int> turns;
bool failed;

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

const size_t STACK = 64 * 1024;
const int LIMIT = 1024;  // threads of a block
std::vector<Fiber> fibers;
char* stacks;
jmp_buf scheduler;
Fiber* current;
std::vector<char> dynamic_shared;
Launch* now;
void (*kernel)(void**);
void** arguments;

void leave() {
  if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

void wait(State state, int line) {
  current->state = state;
  current->line = line;
  leave();
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
  begin_block();
  for (int i = 0; i < threads; i++) fibers[i].state = READY;
  do {
    for (int q = 0; q < threads && !failed; q++) {
      int i = now->reverse ? threads - 1 - q : q;
      if (fibers[i].state == READY) resume(fibers[i], i);
    }
  } while (!failed && (release_warps(threads) || (!failed && release_block(threads))));
}

}  // namespace

void note(const char* format, ...) {
  if (failed) return;
  failed = true;
  va_list list;
  va_start(list, format);
  vsnprintf(now->message, 400, format, list);
  va_end(list);
}

void give_up() {
  for (;;) leave();
}

bool has_stack(const char* p) {
  return !current || (p >= stacks && p < stacks + STACK * LIMIT);
}

int launch(Launch& l, void (*call)(void**), void** args) {
  now = &l, kernel = call, arguments = args;
  failed = false, current = nullptr;
  gridDim = {l.grid[0], l.grid[1], l.grid[2]};
  blockDim = {l.block[0], l.block[1], l.block[2]};
  if (fibers.empty()) new_fibers();
  forget();
  for (int i = 0; i < l.regions; i++)
    watch(l.region[i].start, l.region[i].bytes, l.region[i].item, l.region[i].name, false);
  dynamic_shared.resize(l.shared + 16);
  if (l.shared) watch(dynamic(), l.shared, 4, "shared", true);
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
  atomic_access(p, size);
}

int lane() { return me % 32; }

char* dynamic() { return (char*)(((size_t)dynamic_shared.data() + 15) & ~(size_t)15); }

}  // namespace emu
