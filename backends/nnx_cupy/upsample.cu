#include "common.cuh"

// Where the lines of a new length lie among those there were. Positions are fractions of integers.
struct Line {
  int length, made, mode;  // mode: 0 nearest, 1 bilinear, 2 the same with corner on corner

  __device__ Line(Index length, Index made, Index mode)
      : length((int)length), made((int)made), mode((int)mode) {}

  // Line i of the new ones is (1 - part) times line low plus part times line high.
  __device__ void at(int i, int& low, int& high, A& part) const {
    int top = mode == 0 ? i * length : mode == 1 ? (2 * i + 1) * length - made : i * (length - 1);
    int bottom = mode == 0 ? made : mode == 1 ? 2 * made : made > 1 ? made - 1 : 1;
    if (top < 0) top = 0;
    low = top / bottom;
    part = mode == 0 ? (A)0 : (A)(top - low * bottom) / (A)bottom;
    high = low + 1 < length ? low + 1 : length - 1;
  }

  __device__ A weight(int i, int line) const {
    int low, high;
    A part;
    at(i, low, high, part);
    return (low == line ? 1 - part : (A)0) + (high == line ? part : (A)0);
  }

  // The new lines that can have a weight for that one are among these.
  __device__ void reach(int line, int& from, int& to) const {
    if (mode == 2 && length == 1) {
      from = 0;
      to = made - 1;
      return;
    }
    int top = mode == 2 ? made - 1 : made, bottom = mode == 2 ? length - 1 : length;
    from = (line - 1) * top / bottom - 1;
    to = (line + 2) * top / bottom + 1;
    if (from < 0) from = 0;
    if (to >= made) to = made - 1;
  }
};

extern "C" __global__ void upsample(
    const T* __restrict__ x, T* __restrict__ y, Index planes, Index height, Index width, Index high,
    Index wide, Index mode) {
  Line down(height, high, mode), along(width, wide, mode);
  for (Index t = first(); t < planes * high * wide; t += step()) {
    int row = (int)t / (int)wide, top, bottom, left, right;
    A v, u;
    down.at(row % (int)high, top, bottom, v);
    along.at((int)t % (int)wide, left, right, u);
    const T* from = x + row / (int)high * down.length * along.length;
    if (mode == 0) {
      y[t] = from[top * along.length + left];
      continue;
    }
    const T *a = from + top * along.length, *b = from + bottom * along.length;
    A above = (1 - u) * (A)a[left] + u * (A)a[right];
    A below = (1 - u) * (A)b[left] + u * (A)b[right];
    y[t] = (T)((1 - v) * above + v * below);
  }
}

extern "C" __global__ void upsample_slope(
    const T* __restrict__ dy, T* __restrict__ dx, Index planes, Index height, Index width,
    Index high, Index wide, Index mode) {
  Line down(height, high, mode), along(width, wide, mode);
  for (Index t = first(); t < planes * height * width; t += step()) {
    int row = (int)t / along.length, h = row % down.length, w = (int)t % along.length;
    const T* from = dy + row / down.length * down.made * along.made;
    int top, bottom, left, right;
    down.reach(h, top, bottom);
    along.reach(w, left, right);
    A total = 0;
    for (int i = top; i <= bottom; i++) {
      A v = down.weight(i, h);
      if (v == 0) continue;
      A sum = 0;
      for (int j = left; j <= right; j++) {
        A u = along.weight(j, w);
        if (u != 0) sum += u * (A)from[i * along.made + j];
      }
      total += v * sum;
    }
    dx[t] = (T)total;
  }
}
