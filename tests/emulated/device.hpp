// A CUDA device that is not there: its memory is the host's, its streams are queues. See README.md.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace device {

using Work = std::function<void()>;

struct Graph {
  std::vector<Work> work;
  bool invalid = false;
};

struct Stream {
  int device = 0;
  unsigned flags = 0;
  bool blocking = true;  // waits for the null stream, and is waited for by it
  std::deque<Work> queue;
  std::shared_ptr<Graph> graph;  // that it is captured into
  bool origin = false;           // whether the capture began here
};

struct Event {
  long long recorded = 0, done = 0;  // how often
  Stream* stream = nullptr;
  std::shared_ptr<Graph> graph;  // that it was recorded into
  double seconds = 0;
};

extern std::recursive_mutex lock;
extern std::set<Stream*> streams;  // but the null streams
#define LOCKED std::lock_guard<std::recursive_mutex> guard(device::lock)

int number();  // of the current device
Stream* stream_of(void* handle);
int enqueue(void* handle, Work work);  // or captures it; a cudaError
int synchronize(Stream* stream);       // a cudaError
void step(Stream* stream);             // does the first of what waits
void finish(Stream* stream);
void drain();  // all streams of all devices

int refused(Stream* stream, int error);  // ends its capture

size_t bytes_from(const void* p);  // to the end of its allocation; 0: it is no device memory
int owner(const void* p);          // the device of the memory; -1: it is none
[[noreturn]] void wrong(const char* format, ...);  // what a real device may do in silence

}  // namespace device
