// Streams and events. Work waits in its stream until somebody waits for it: as late as CUDA
// allows, so that a wait that is missing shows. With NNX_EMULATED_SEED some is done early, at random.
#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <random>

#include "device.hpp"

namespace device {

std::recursive_mutex lock;
std::set<Stream*> streams;

namespace {

const int MOST_DEVICES = 8;
thread_local int current;
Stream null_streams[MOST_DEVICES];

int count() {
  const char* told = getenv("NNX_EMULATED_DEVICES");
  return told ? atoi(told) : 1;
}

double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

Stream* null_stream() { return &null_streams[current]; }

void reach(Event* e, long long version) {
  while (e->done < version) {
    if (e->stream->queue.empty()) wrong("an event that its stream has lost");
    step(e->stream);
  }
}

}  // namespace

int number() { return current; }

Stream* stream_of(void* handle) {
  // 0, and the handles of the legacy and of the per-thread null stream
  return (size_t)handle <= 2 ? null_stream() : (Stream*)handle;
}

void step(Stream* s) {
  Work first = std::move(s->queue.front());
  s->queue.pop_front();
  first();
}

void finish(Stream* s) {
  while (!s->queue.empty()) step(s);
}

void drain() {
  for (Stream& s : null_streams) finish(&s);
  for (Stream* s : streams) finish(s);
}

// Some of what waits, of streams at random.
static void hurry() {
  static const char* seed = getenv("NNX_EMULATED_SEED");
  static std::mt19937 random(seed ? atoi(seed) : 0);
  if (!seed) return;
  std::vector<Stream*> waiting;
  for (Stream& s : null_streams) waiting.push_back(&s);
  waiting.insert(waiting.end(), streams.begin(), streams.end());
  for (int i = random() % 4; i > 0; i--) {
    Stream* s = waiting[random() % waiting.size()];
    for (int n = random() % 8; n > 0 && !s->queue.empty(); n--) step(s);
  }
}

int refused(Stream* s, int error) {
  if (s->graph) s->graph->invalid = true;
  return error;
}

// What the null stream waits for; an error where that is captured.
static int join(Stream* null) {
  for (Stream* s : streams) {
    if (!s->blocking || s->device != null->device) continue;
    if (s->graph) return refused(s, cudaErrorStreamCaptureImplicit);
    finish(s);
  }
  return 0;
}

int synchronize(Stream* s) {
  if (s->graph) return refused(s, cudaErrorStreamCaptureUnsupported);
  if (s == null_stream())
    if (int error = join(s)) return error;
  finish(s);
  return 0;
}

int enqueue(void* handle, Work work) {
  Stream* s = stream_of(handle);
  if (s != null_stream() && s->device != current)
    wrong("a stream of device %d is used while %d is current", s->device, current);
  if (s->graph) {
    s->graph->work.push_back(std::move(work));
    return 0;
  }
  if (s == null_stream()) {
    if (int error = join(s)) return error;
  } else if (s->blocking) {
    finish(null_stream());
  }
  s->queue.push_back(std::move(work));
  hurry();
  return 0;
}

void wrong(const char* format, ...) {
  va_list list;
  va_start(list, format);
  fprintf(stderr, "emulated device: ");
  vfprintf(stderr, format, list);
  fprintf(stderr, "\n");
  va_end(list);
  abort();
}

}  // namespace device

using namespace device;

extern "C" {

cudaError_t cudaGetDevice(int* d) { return *d = current, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* n) { return *n = count(), cudaSuccess; }
cudaError_t cudaSetDevice(int d) {
  if (d < 0 || d >= count() || d >= MOST_DEVICES) return cudaErrorInvalidDevice;
  current = d;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  LOCKED;
  for (Stream* s : streams)
    if (s->graph) return (cudaError_t)refused(s, cudaErrorStreamCaptureUnsupported);
  drain();
  return cudaSuccess;
}

// streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  LOCKED;
  Stream* s = new Stream;
  s->device = current, s->flags = flags, s->blocking = !(flags & cudaStreamNonBlocking);
  streams.insert(s);
  *out = (cudaStream_t)s;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
  return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* f) {
  return *f = stream_of(s)->flags, cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) { return *p = 0, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  LOCKED;
  if (stream_of(handle)->queue.empty()) streams.erase(stream_of(handle));
  return cudaSuccess;  // not deleted: its work may wait, events may know it
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  LOCKED;
  return (cudaError_t)synchronize(stream_of(s));
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  LOCKED;
  Stream* s = stream_of(handle);
  if (s->graph) return (cudaError_t)refused(s, cudaErrorStreamCaptureUnsupported);
  if (s->queue.empty()) return cudaSuccess;
  step(s);  // or a loop that asks would not end
  return cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  LOCKED;
  Event* e = (Event*)event;
  Stream* s = stream_of(handle);
  if (e->graph) {
    if (s == null_stream()) return (cudaError_t)refused(s, cudaErrorStreamCaptureImplicit);
    if (s->graph && s->graph != e->graph) return cudaErrorStreamCaptureMerge;
    s->graph = e->graph;
    return cudaSuccess;
  }
  long long version = e->recorded;
  if (!version) return cudaSuccess;
  if (s->graph) return (cudaError_t)refused(s, cudaErrorStreamCaptureIsolation);
  return (cudaError_t)enqueue(handle, [=] { reach(e, version); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) {
  LOCKED;
  return (cudaError_t)enqueue(s, [=] { f(data); });
}

// events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  return *e = (cudaEvent_t) new Event, cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }  // work that waits may know it
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  LOCKED;
  Event* e = (Event*)event;
  e->stream = stream_of(handle);
  e->graph = e->stream->graph;
  if (e->graph) return cudaSuccess;
  long long version = ++e->recorded;
  return (cudaError_t)enqueue(handle, [=] { e->done = version, e->seconds = seconds(); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LOCKED;
  Event* e = (Event*)event;
  if (e->graph) return e->graph->invalid = true, cudaErrorCapturedEvent;
  reach(e, e->recorded);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  LOCKED;
  Event* e = (Event*)event;
  if (e->done >= e->recorded) return cudaSuccess;
  step(e->stream);
  return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  LOCKED;
  Event *first = (Event*)a, *last = (Event*)b;
  if (first->done < first->recorded || last->done < last->recorded) return cudaErrorNotReady;
  *ms = (last->seconds - first->seconds) * 1e3;
  return cudaSuccess;
}
}
