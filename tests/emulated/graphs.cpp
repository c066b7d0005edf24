// Graphs: what a stream would have done, kept and done again.
#include <cuda_runtime_api.h>

#include "device.hpp"

using namespace device;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  LOCKED;
  Stream* s = stream_of(handle);
  if (s == stream_of(nullptr)) return cudaErrorStreamCaptureImplicit;
  if (s->graph) return cudaErrorIllegalState;
  s->graph = std::make_shared<Graph>();
  s->origin = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  LOCKED;
  Stream* s = stream_of(handle);
  *out = nullptr;
  if (!s->graph || !s->origin) return cudaErrorStreamCaptureUnmatched;
  std::shared_ptr<Graph> graph = s->graph;
  for (Stream* other : streams)
    if (other->graph == graph) other->graph = nullptr, other->origin = false;
  if (graph->invalid) return cudaErrorStreamCaptureInvalidated;
  *out = (cudaGraph_t) new std::shared_ptr<Graph>(graph);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* is) {
  LOCKED;
  Stream* s = stream_of(handle);
  *is = !s->graph           ? cudaStreamCaptureStatusNone
        : s->graph->invalid ? cudaStreamCaptureStatusInvalidated
                            : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  *out = (cudaGraphExec_t) new std::shared_ptr<Graph>(*(std::shared_ptr<Graph>*)graph);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  return delete (std::shared_ptr<Graph>*)g, cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  return delete (std::shared_ptr<Graph>*)g, cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
  LOCKED;
  std::shared_ptr<Graph> graph = *(std::shared_ptr<Graph>*)exec;
  return (cudaError_t)enqueue(s, [=] {
    for (auto& work : graph->work) work();
  });
}
}
