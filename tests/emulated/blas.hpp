// Products of column-major matrices, as cuBLAS and cuBLASLt have them.
#pragma once
#include <stddef.h>

enum Type { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 14 };             // cudaDataType_t
enum Compute { IN_TF32 = 77, IN_BFLOAT16 = 75, IN_FLOAT64 = 70, IN_FLOAT64_PEDANTIC = 71 };
enum Status { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };

struct Matrix {
  void* at;
  int type;
  long long rows, cols, ld;  // as it lies there
  bool turned;               // whether its transpose is meant

  Matrix behind(long long entries) const;  // the next of a stack, so many entries on
};

size_t size_of(int type);
double get(const void* p, long long i, int type);
void put(void* p, long long i, int type, double value);
// y = alpha a @ b + beta y, computed in float64 of factors rounded as `compute` says
void product(int compute, double alpha, const Matrix& a, const Matrix& b, double beta,
             const Matrix& y);
