"""Windows that slide over images, as kernels are told of them (`geometry.cuh`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from nnx.ops._geometry import count, pairs, per_axis

Pair = tuple[int, int]
MOST = 2**31 - 1  # entries of an array: kernels count them in ints; more are the portable kernels'


class Windows(NamedTuple):
    """image: its lengths; before: how much padding precedes it. All are (vertical, horizontal)."""

    image: Pair
    places: Pair
    size: Pair
    stride: Pair
    gap: Pair
    before: Pair

    @property
    def numbers(self) -> tuple[int, ...]:
        """What kernels take."""
        return tuple([y << 32 | x for y, x in self])

    @property
    def pointwise(self) -> bool:
        """Whether each window is the entry of the image at its place."""
        return self.entries == 1 and self.places == self.image and self.stride == (1, 1)

    @property
    def area(self) -> int:
        return self.image[0] * self.image[1]

    @property
    def many(self) -> int:
        return self.places[0] * self.places[1]

    @property
    def entries(self) -> int:
        return self.size[0] * self.size[1]


def windows(
    image: tuple[int, ...], size: tuple[int, ...], stride: Any, padding: Any, dilation: Any
) -> Windows:
    """Of images; also of lines, which are images of one row."""
    n = len(size)
    gaps = per_axis(dilation, n)
    steps, pads = per_axis(stride, n), pairs(padding, size, gaps)
    given = [
        (image[i], count(image[i] + sum(pads[i]), size[i], steps[i], gaps[i]), size[i], steps[i],
         gaps[i], pads[i][0])
        for i in range(n)
    ]  # fmt: skip
    if n == 1:
        given.insert(0, (1, 1, 1, 1, 1, 0))
    return Windows(*((int(a), int(b)) for a, b in zip(*given, strict=True)))
