// In place of ../cuda/memory.cpp: accesses are not watched here.
#include "../cuda/runtime.hpp"

namespace emu {

void forget() {}
void watch(char*, size_t, int, const char*, bool) {}
void begin_block() {}
void atomic_access(void*, int) {}

}  // namespace emu
