// Memory of the devices and pinned memory of the host, copies, and what a device says of itself.
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>

#include "device.hpp"

namespace device {

namespace {

struct Block {
  size_t bytes;
  int device;
};
std::map<char*, Block> on_device, pinned;  // by their first byte
size_t used;

size_t capacity() {  // of all devices together
  const char* told = getenv("NNX_EMULATED_BYTES");
  return told ? strtoull(told, nullptr, 10) : 8ull << 30;
}

// The block that p points into; null if none.
const std::pair<char* const, Block>* find(const std::map<char*, Block>& held, const void* p) {
  auto it = held.upper_bound((char*)p);
  if (it == held.begin()) return nullptr;
  --it;
  return (char*)p < it->first + it->second.bytes ? &*it : nullptr;
}

cudaError_t take(void** out, size_t n, std::map<char*, Block>& held) {
  *out = nullptr;
  bool counts = &held == &on_device;
  if (counts && used + n > capacity()) return cudaErrorMemoryAllocation;
  void* made;
  if (posix_memalign(&made, 512, n ? n : 1)) return cudaErrorMemoryAllocation;
  memset(made, 0xFF, n);  // NaN, where it is read before it is written
  held[(char*)made] = {n, number()};
  if (counts) used += n;
  *out = made;
  return cudaSuccess;
}

cudaError_t release(void* p, std::map<char*, Block>& held) {
  if (!p) return cudaSuccess;
  auto it = held.find((char*)p);
  if (it == held.end()) return cudaErrorInvalidValue;
  drain();
  if (&held == &on_device) used -= it->second.bytes;
  free(p);
  held.erase(it);
  return cudaSuccess;
}

// kind: as of cudaMemcpyKind.   waits: whether it is done when this returns
cudaError_t copy(void* to, const void* from, size_t n, int kind, void* stream, bool waits) {
  if (!n) return cudaSuccess;
  bool reads = bytes_from(from), writes = bytes_from(to);
  if (kind != cudaMemcpyDefault && kind != 2 * reads + writes) return cudaErrorInvalidValue;
  if ((reads && bytes_from(from) < n) || (writes && bytes_from(to) < n))
    return cudaErrorInvalidValue;
  Stream* s = stream_of(stream);
  bool from_pageable = !reads && !find(pinned, from), to_pageable = !writes && !find(pinned, to);
  if (s->graph && (waits || from_pageable || to_pageable))
    return (cudaError_t)refused(s, cudaErrorStreamCaptureUnsupported);
  int error;
  if (from_pageable) {  // such memory is read before the call returns
    auto held = std::make_shared<std::vector<char>>((char*)from, (char*)from + n);
    error = enqueue(stream, [=] { memcpy(to, held->data(), n); });
  } else {
    error = enqueue(stream, [=] { memmove(to, from, n); });
  }
  if (!error && (waits || to_pageable)) error = synchronize(s);
  return (cudaError_t)error;
}

}  // namespace

size_t bytes_from(const void* p) {
  auto found = find(on_device, p);
  return found ? found->first + found->second.bytes - (char*)p : 0;
}

int owner(const void* p) {
  auto found = find(on_device, p);
  return found ? found->second.device : -1;
}

}  // namespace device

using namespace device;

extern "C" {

cudaError_t cudaMalloc(void** p, size_t n) {
  LOCKED;
  return take(p, n, on_device);
}
cudaError_t cudaFree(void* p) {
  LOCKED;
  return release(p, on_device);
}
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  LOCKED;
  return take(p, n, pinned);
}
cudaError_t cudaFreeHost(void* p) {
  LOCKED;
  return release(p, pinned);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCKED;
  *total = capacity();
  *free = *total - used;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  LOCKED;
  bool there = bytes_from(p), host = find(pinned, p);
  memset(a, 0, sizeof *a);
  a->type = there ? cudaMemoryTypeDevice : host ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  a->device = there ? owner(p) : 0;
  a->devicePointer = there || host ? (void*)p : nullptr;
  a->hostPointer = host ? (void*)p : nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  LOCKED;
  return copy(to, from, n, kind, nullptr, true);
}
cudaError_t cudaMemcpyAsync(
    void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
  LOCKED;
  return copy(to, from, n, kind, s, false);
}
cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) {
  LOCKED;
  return copy(to, from, n, cudaMemcpyDeviceToDevice, nullptr, true);
}
cudaError_t cudaMemcpyPeerAsync(
    void* to, int, const void* from, int, size_t n, cudaStream_t s) {
  LOCKED;
  return copy(to, from, n, cudaMemcpyDeviceToDevice, s, false);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
  LOCKED;
  if (bytes_from(p) < n) return cudaErrorInvalidValue;
  return (cudaError_t)enqueue(s, [=] { memset(p, value, n); });
}
cudaError_t cudaMemset(void* p, int value, size_t n) {
  return cudaMemsetAsync(p, value, n, nullptr);
}

// what it is

cudaError_t cudaRuntimeGetVersion(int* v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t e) {
  switch ((int)e) {
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
  }
  return "cudaError";
}
const char* cudaGetErrorString(cudaError_t e) {
  static thread_local char text[40];
  snprintf(text, sizeof text, "error %d of the emulated device", (int)e);
  return (int)e == cudaErrorMemoryAllocation ? "out of memory" : text;
}
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  switch ((int)a) {
    case cudaDevAttrComputeCapabilityMajor: return *v = 9, cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock: return *v = 1024, cudaSuccess;
    case cudaDevAttrWarpSize: return *v = 32, cudaSuccess;
    case cudaDevAttrMultiProcessorCount: return *v = 4, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock: return *v = 49152, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return *v = 232448, cudaSuccess;
    case cudaDevAttrMaxGridDimX: return *v = 2147483647, cudaSuccess;
  }
  return *v = 0, cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "emulated device");
  p->major = 9, p->multiProcessorCount = 4, p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448;
  p->totalGlobalMem = capacity();
  p->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* s, int, int d) {
  return snprintf(s, 13, "0000:%02d:00.0", d), cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
}
