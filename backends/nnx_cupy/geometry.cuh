// Windows that slide over images. A pair of ints, for the vertical and the horizontal axis, comes as
// one number: y 2^32 + x.

struct Pair {
  int y, x;
};

struct Windows {
  Pair image, places, size, stride, gap, before;  // places: how many windows; before: padding

  __device__ Windows(
      Index image, Index places, Index size, Index stride, Index gap, Index before)
      : image(pair(image)), places(pair(places)), size(pair(size)), stride(pair(stride)),
        gap(pair(gap)), before(pair(before)) {}

  __device__ static Pair pair(Index v) {
    Pair p;
    p.y = (int)(v >> 32);
    p.x = (int)v;
    return p;
  }

  // Calls f(i, q, inside) for each entry q of the window at place `at`, which lies at i in the image,
  // if inside of it.
  template <class F>
  __device__ void entries(int at, F f) const {
    int h = at / places.x * stride.y - before.y, w = at % places.x * stride.x - before.x;
    for (int k = 0; k < size.y; k++)
      for (int l = 0; l < size.x; l++) {
        int y = h + k * gap.y, x = w + l * gap.x;
        bool inside = y >= 0 && y < image.y && x >= 0 && x < image.x;
        f(y * image.x + x, k * size.x + l, inside);
      }
  }

  // How many entries of the window at that place the image has; of windows without gaps.
  __device__ int inside(int at) const {
    int h = at / places.x * stride.y - before.y, w = at % places.x * stride.x - before.x;
    int high = (h + size.y < image.y ? h + size.y : image.y) - (h > 0 ? h : 0);
    int wide = (w + size.x < image.x ? w + size.x : image.x) - (w > 0 ? w : 0);
    return high * wide;
  }

  // The reverse: calls f(i, q) for each place i whose window has the image's entry `at` as its q.
  template <class F>
  __device__ void seen_by(int at, F f) const {
    int h = at / image.x + before.y, w = at % image.x + before.x;
    for (int k = 0; k < size.y; k++) {
      int y = h - k * gap.y, i = y / stride.y;
      if (y < 0 || i * stride.y != y || i >= places.y) continue;
      for (int l = 0; l < size.x; l++) {
        int x = w - l * gap.x, j = x / stride.x;
        if (x < 0 || j * stride.x != x || j >= places.x) continue;
        f(i * places.x + j, k * size.x + l);
      }
    }
  }
};
