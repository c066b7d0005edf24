#include "common.cuh"
#include "columns.cuh"

// y = f(x), dx = dy slope(v), where v is y if a slope is known by the result, else x.

struct Identity {
  __device__ static A f(A x) { return x; }
  __device__ static A slope(A) { return 1; }
};

struct Relu {
  __device__ static A f(A x) { return x <= 0 ? (A)0 : x; }  // NaN stays NaN
  __device__ static A slope(A y) { return y > 0 ? (A)1 : (A)0; }
};

__device__ inline A logistic(A x) {
  A z = exp(-fabs(x));
  return (x >= 0 ? (A)1 : z) / (1 + z);
}

struct Sigmoid {
  __device__ static A f(A x) { return logistic(x); }
  __device__ static A slope(A y) { return y * (1 - y); }
};

struct Tanh {
  __device__ static A f(A x) { return tanh(x); }
  __device__ static A slope(A y) { return 1 - y * y; }
};

// x, but not below -FAR, or not farther out than FAR: infinity times 0 would be NaN. From FAR on
// e^-x and e^(-x^2 / 2) are 0 and tanh(x) is 1, in double too. NaN stays NaN.
constexpr A FAR = 1000;
__device__ inline A above(A x) { return x < -FAR ? -FAR : x; }
__device__ inline A within(A x) { return x > FAR ? FAR : above(x); }

struct Silu {
  __device__ static A f(A x) { return above(x) * logistic(x); }
  __device__ static A slope(A x) {
    x = within(x);
    A s = logistic(x);
    return s * (1 + x * (1 - s));
  }
};

struct Gelu {
  __device__ static A phi(A x) { return (A)0.5 * erfc(-x * (A)0.70710678118654752); }
  __device__ static A f(A x) { return above(x) * phi(x); }
  __device__ static A slope(A x) {
    x = within(x);
    return phi(x) + x * (exp((A)-0.5 * x * x) * (A)0.39894228040143268);
  }
};

struct GeluTanh {
  __device__ static A phi(A x) {
    A inner = (A)0.79788456080286536 * (x + (A)0.044715 * x * x * x);
    return (A)0.5 * (1 + tanh(inner));
  }
  __device__ static A f(A x) { return above(x) * phi(x); }
  __device__ static A slope(A x) {
    x = within(x);
    A p = phi(x), inner = (A)0.79788456080286536 * (1 + 3 * (A)0.044715 * x * x);
    return p + x * (2 * p * (1 - p) * inner);
  }
};

extern "C" __global__ void forward(const T* __restrict__ x, T* __restrict__ y, Index size) {
  map_all(x, y, size, [](A v) { return NNX_F::f(v); });
}

extern "C" __global__ void slope(
    const T* __restrict__ dy, const T* __restrict__ v, T* __restrict__ dx, Index size) {
  map_all(dy, v, dx, size, [](A d, A a) { return d * NNX_F::slope(a); });
}

// With z: y += b, z = f(y). Without: y = f(y + b). b is one number for each column.
extern "C" __global__ void bias_forward(
    T* __restrict__ y, const T* __restrict__ b, T* __restrict__ z, Index rows, Index columns) {
  for (Index row = first_row(); row < rows; row += row_step()) {
    T* at = y + row * columns;
    T* to = z ? z + row * columns : at;
    if (columns % PACK == 0 && aligned(at) && aligned(to) && aligned(b)) {
      for (Index j = threadIdx.x * PACK; j < columns; j += blockDim.x * PACK) {
        Pack p = *(const Pack*)(at + j), q = *(const Pack*)(b + j);
        for (int k = 0; k < PACK; k++) {
          q.v[k] = (T)((A)p.v[k] + (A)q.v[k]);
          p.v[k] = (T)NNX_F::f((A)q.v[k]);
        }
        if (z) *(Pack*)(at + j) = q;
        *(Pack*)(to + j) = p;
      }
    } else {
      for (Index j = threadIdx.x; j < columns; j += blockDim.x) {
        T with_bias = (T)((A)at[j] + (A)b[j]);
        if (z) at[j] = with_bias;
        to[j] = (T)NNX_F::f((A)with_bias);
      }
    }
  }
}

// dx as in `slope`, and out: the sums of its columns over chunks of rows
extern "C" __global__ void slope_sums(
    const T* __restrict__ dy, const T* __restrict__ v, T* __restrict__ dx, A* __restrict__ out,
    Index rows, Index columns) {
  sum_channels(rows, columns, 1, out, [&](Index, Index, Index i) {
    T d = (T)((A)dy[i] * NNX_F::slope((A)v[i]));
    dx[i] = d;
    return (A)d;
  });
}
