// Modules, kernels and their launches; and NVRTC, which has compiler.py call g++. What a "cubin" holds
// is the path of a library.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "device.hpp"
#include "../cuda/shim.hpp"  // whose macros would be in the way of headers

using namespace device;

namespace {

const char MAGIC[] = "nnx emulated ";

struct Function {  // a kernel on the device that it was loaded on
  int device;
  std::string name;
  size_t (*count)();       // of its parameters
  void* (*pack)(void**);   // the values of its arguments, as they are when it is launched
  void (*drop)(void*);     // frees what `pack` made
  int (*run)(emu::Launch*, void*);
};

struct Program {
  std::string source, log, binary;
  std::vector<std::string> expressions;
};

std::string read(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

void write(const std::string& path, const std::vector<std::string>& lines) {
  std::ofstream file(path);
  for (auto& line : lines) file << line << "\n";
}

void check(const Function& f, unsigned blocks, unsigned threads, void** params) {
  if (f.device != number())
    wrong("%s is loaded on device %d, and %d is current", f.name.c_str(), f.device, number());
  if (!blocks || !threads || threads > 1024)
    wrong("%s is launched with %u blocks of %u threads", f.name.c_str(), blocks, threads);
  for (size_t i = 0; i < f.count(); i++) {  // pointers, and arrays of CuPy's, which begin with one
    void* pointer;
    memcpy(&pointer, params[i], sizeof pointer);
    int of = owner(pointer);
    if (of >= 0 && of != f.device)
      wrong("%s: argument %zu lies on device %d, not %d", f.name.c_str(), i, of, f.device);
  }
}

}  // namespace

extern "C" {

int cudaGetDevice(int*);
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* v) { return *v = 13000, 0; }
int cuGetErrorName(int, const char** s) { return *s = "CUDA_ERROR", 0; }
int cuGetErrorString(int, const char** s) { return *s = "an error of the emulated driver", 0; }
int cuCtxGetCurrent(void** c) { return *c = (void*)1, 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxGetDevice(int* d) { return cudaGetDevice(d); }
int cuStreamGetCtx(void*, void** c) { return *c = (void*)1, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }

int cuModuleLoadData(void** module, const void* image) {
  std::string text((const char*)image);
  const size_t skipped = sizeof MAGIC - 1;
  if (text.compare(0, skipped, MAGIC)) return 200;  // CUDA_ERROR_INVALID_IMAGE
  *module = dlopen(text.c_str() + skipped, RTLD_NOW | RTLD_LOCAL);
  if (!*module) wrong("%s", dlerror());
  return 0;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** out, void* module, const char* name) {
  Function* f = new Function{number(), name};
  auto found = [&](const char* what) { return dlsym(module, (what + f->name).c_str()); };
  *(void**)&f->count = found("count_");
  *(void**)&f->pack = found("pack_");
  *(void**)&f->drop = found("drop_");
  *(void**)&f->run = found("run_");
  if (!f->run) return delete f, 500;  // CUDA_ERROR_NOT_FOUND
  *out = f;
  return 0;
}
int cuModuleGetGlobal_v2(void**, size_t*, void*, const char*) { return 500; }
int cuFuncGetAttribute(int* v, int attribute, void*) {
  *v = attribute == 0 ? 1024 : 0;  // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
  return 0;
}
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int, size_t) { return *n = 2, 0; }
int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
  return *grid = 4, *block = 128, 0;
}
int cuLaunchKernel(
    void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void* stream, void** params, void** extra) {
  LOCKED;
  Function* f = (Function*)function;
  if (extra) return 1;  // CUDA_ERROR_INVALID_VALUE
  check(*f, gx * gy * gz, bx * by * bz, params);
  std::shared_ptr<void> held(f->pack(params), f->drop);
  return enqueue(stream, [=] {
    char message[400];
    emu::Launch l = {{gx, gy, gz}, {bx, by, bz}, shared, 0, 0, nullptr, message, 0};
    if (f->run(&l, held.get())) wrong("%s: %s", f->name.c_str(), message);
  });
}

// NVRTC

const char* nvrtcGetErrorString(int e) {
  return e == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR";
}
int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int* n) { return *n = 1, 0; }
int nvrtcGetSupportedArchs(int* archs) { return archs[0] = 90, 0; }
int nvrtcCreateProgram(
    Program** out, const char* source, const char*, int headers, const char* const*,
    const char* const*) {
  if (headers) wrong("a program with headers of its own");
  return *out = new Program{source}, 0;
}
int nvrtcDestroyProgram(Program** p) { return delete *p, 0; }
int nvrtcAddNameExpression(Program* p, const char* e) { return p->expressions.push_back(e), 0; }
int nvrtcGetLoweredName(Program* p, const char* e, const char** out) {
  for (size_t i = 0; i < p->expressions.size(); i++)
    if (p->expressions[i] == e) return *out = strdup(("expression" + std::to_string(i)).c_str()), 0;
  return 10;  // NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID
}
int nvrtcCompileProgram(Program* p, int n, const char* const* options) {
  LOCKED;
  char folder[] = "/tmp/nnx-emulated-XXXXXX";
  if (!mkdtemp(folder)) return 1;
  std::string at(folder);
  std::ofstream(at + "/source") << p->source;
  write(at + "/options", std::vector<std::string>(options, options + n));
  write(at + "/expressions", p->expressions);
  int failed = system(("$NNX_EMULATED_COMPILE " + at).c_str());
  p->log = read(at + "/log");
  p->binary = MAGIC + read(at + "/library");
  int left = system(("rm -r " + at).c_str());
  return failed || left ? 6 : 0;
}
int nvrtcGetCUBINSize(Program* p, size_t* n) { return *n = p->binary.size() + 1, 0; }
int nvrtcGetCUBIN(Program* p, char* out) { return strcpy(out, p->binary.c_str()), 0; }
int nvrtcGetPTXSize(Program* p, size_t* n) { return *n = p->binary.size() + 1, 0; }
int nvrtcGetPTX(Program* p, char* out) { return strcpy(out, p->binary.c_str()), 0; }
int nvrtcGetProgramLogSize(Program* p, size_t* n) { return *n = p->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program* p, char* out) { return strcpy(out, p->log.c_str()), 0; }
int nvrtcGetLTOIRSize(Program*, size_t*) { return 1; }
int nvrtcGetLTOIR(Program*, char*) { return 1; }
}
