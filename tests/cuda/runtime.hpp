// What fibers.cpp and memory.cpp know of each other.
#pragma once
#include <vector>

#include "shim.hpp"

namespace emu {

extern int me, block, interval;  // the thread that runs, its block, how many barriers it has passed
extern std::vector<int> turns;   // of each warp: how many __syncwarp it has passed
extern bool failed;

void note(const char* format, ...);  // what went wrong: the first is kept
[[noreturn]] void give_up();         // ends the launch
bool has_stack(const char* p);       // whether it is a fiber's own memory, or no fiber runs

void forget();  // all memory that was watched; what follows is of another launch
void watch(char* start, size_t bytes, int item, const char* name, bool shared);
void begin_block();  // shared memory has no values
void atomic_access(void* p, int size);

}  // namespace emu
