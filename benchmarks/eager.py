"""Where the time of an eager training step goes: `python benchmarks/eager.py`.

Each part is timed by itself, in turn with the others, on one thread; the times are medians. What
the kernels take is what a replay takes: the same kernels, without Python in between.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim

SIZES, BATCH, CALLS, ROUNDS = (64, 32, 10), 32, 200, 25


def parts() -> dict[str, Callable[[], object]]:
    nnx.seed(0)
    net = L.Sequential(L.Linear(*SIZES[:2]), L.Relu(), L.Linear(*SIZES[1:]))
    loss, opt = L.SoftmaxCrossEntropy(), optim.SGD(net.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, SIZES[0])).astype("float32")
    t = rng.integers(0, SIZES[-1], BATCH)

    def step(x: object, t: object) -> object:
        opt.zero_grad()
        value = loss(net(nnx.Tensor(x)), t)
        value.backward()
        opt.step()
        return value

    def forward() -> object:
        return loss(net(nnx.Tensor(x)), t)

    def unrecorded() -> object:
        with nnx.no_grad():
            return loss(net(nnx.Tensor(x)), t)

    def both() -> object:
        opt.zero_grad()
        value = loss(net(nnx.Tensor(x)), t)
        value.backward()
        return value

    replayed = nnx.capture(step)
    return {
        "unrecorded": unrecorded,
        "forward": forward,
        "backward": both,
        "step": lambda: step(x, t),
        "replay": lambda: replayed(x, t),
    }


def timed() -> dict[str, float]:
    """Microseconds of each part, and of those before it that it includes."""
    found = parts()
    rounds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        for name, f in found.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                f()
            rounds[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}


def main() -> None:
    nnx.set_num_threads(1)
    t = timed()
    rows = [
        ("forward, nothing noted", t["unrecorded"]),
        ("noting the calls on the tape", t["forward"] - t["unrecorded"]),
        ("backward, and zero_grad", t["backward"] - t["forward"]),
        ("the optimizer's step", t["step"] - t["backward"]),
        ("the whole step", t["step"]),
        ("of it kernels: the same step replayed", t["replay"]),
    ]
    print(f"{'-'.join(map(str, SIZES))}, batch {BATCH}, SGD, one thread, NumPy {np.__version__}")
    for what, microseconds in rows:
        print(f"{what:<40} {microseconds:6.1f} us  {100 * microseconds / t['step']:3.0f} %")


if __name__ == "__main__":
    main()
