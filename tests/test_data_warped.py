"""Transforms in the loader, and runs with them that stop, or are killed, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_loader import rows

import nnx
from nnx.data import DataLoader, load
from nnx.data.transforms import Compose, Elastic, Shift
from nnx.errors import OptionError, ShapeError

WARP = Compose(Elastic(6, 2), Shift(1))


def warped(**options: Any) -> DataLoader:
    defaults: dict[str, Any] = {"shuffle": True, "seed": 3, "transform": WARP}
    return DataLoader(load("digits"), 100, **{**defaults, **options})


def values(batches: Any) -> list[tuple[bytes, bytes]]:
    return [(x.tobytes(), t.tobytes()) for x, t in batches]


def test_a_transform_sees_images_and_its_own_generator() -> None:
    seen = []

    def transform(x: Any, rng: np.random.Generator) -> Any:
        seen.append((x.shape, x.dtype.name, rng.integers(2**40)))
        x += 1  # the batch's own memory
        return x

    digits = load("digits")
    before = digits.x.copy()
    loader = DataLoader(digits, 500, transform=transform, seed=3)
    batches = list(loader)
    assert [s[:2] for s in seen] == [((n, 8, 8), "float32") for n in (500, 500, 438)]
    assert len({s[2] for s in seen}) == 3 and np.array_equal(digits.x, before)
    assert np.array_equal(np.concatenate([x for x, _ in batches]), digits.x + 1)
    plain = DataLoader(rows(4), 4, transform=lambda x, rng: x * 2)
    assert next(iter(plain))[0].tolist() == [[0], [2], [4], [6]]


def test_images_follow_from_seed_epoch_and_batch_alone() -> None:
    first, second = values(warped().batches(0)), values(warped().batches(1))
    assert first != second and len(set(first)) == len(first)
    loader = warped()
    assert [values(loader), values(loader)] == [first, second]
    assert values(warped().batches(1, 9)) == second[9:]  # as a run that is taken up
    assert values(warped(seed=4)) != first
    nnx.seed(5)
    drawn = values(warped(seed=None, shuffle=False))
    nnx.seed(5)
    assert values(warped(seed=None, shuffle=False)) == drawn


def test_wrong_transforms() -> None:
    wrong: Any
    with pytest.raises(OptionError, match=r"transform='flip', expected a function of \(x, rng\)"):
        DataLoader(rows(4), 2, transform="flip")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="prefetch=2, expected True or False"):
        DataLoader(rows(4), 2, prefetch=2)  # type: ignore[arg-type]
    for wrong, made in ((lambda x, rng: x[:1], r"shape \(1, 1\)"), (lambda x, rng: None, "None")):
        loader = DataLoader(rows(4), 2, transform=wrong)
        with pytest.raises(ShapeError, match=rf"the transform made {made}.* array of 2 rows"):
            list(loader)


# Training


def trainer(folder: Path, **options: Any) -> nnx.Trainer:
    nnx.seed(0)
    model = nnx.layers.Sequential(
        nnx.layers.Linear(64, 20), nnx.layers.Relu(), nnx.layers.Linear(20, 10)
    )
    return nnx.Trainer(model, nnx.optim.Adam(model.parameters()), folder=folder, **options)


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_run_that_stops_within_an_epoch_goes_on_with_the_same_images(
    tmp_path: Path, prefetch: bool
) -> None:
    whole = trainer(tmp_path / "whole")
    whole.fit(warped(), epochs=3)

    def stop(run: nnx.Trainer) -> None:
        if run.step == 20:
            run.stop()

    trainer(tmp_path / "cut", on_step=[stop]).fit(warped(prefetch=prefetch), epochs=3)
    taken_up = trainer(tmp_path / "cut")
    assert taken_up.resume() and taken_up.batch == 5
    taken_up.stopped = None
    other = warped(transform=Shift(1))
    with pytest.raises(OptionError, match=r"'transform': 'Compose\(Elastic.*give one like it"):
        taken_up.fit(other, epochs=3)
    taken_up.fit(warped(prefetch=not prefetch), epochs=3)
    for p, q in zip(whole.model.parameters(), taken_up.model.parameters(), strict=True):
        assert np.array_equal(p.data, q.data)


RUN = """
import os, signal, sys
import nnx
from nnx.data import DataLoader, load
from nnx.data.transforms import Compose, Elastic, Shift

folder, steps, prefetch = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
nnx.seed(0)
model = nnx.layers.Sequential(
    nnx.layers.Linear(64, 20), nnx.layers.Relu(), nnx.layers.Dropout(0.2), nnx.layers.Linear(20, 10)
)

def die(run):
    if run.step - began == steps:
        os.kill(os.getpid(), signal.SIGKILL)

optimizer = nnx.optim.Adam(model.parameters())
run = nnx.Trainer(model, optimizer, folder=folder, save_every=4, on_step=[die])
run.resume(missing_ok=True)
began = run.step
warp = Compose(Elastic(6, 2), Shift(1))
options = {"shuffle": True, "seed": 3, "transform": warp, "prefetch": prefetch}
run.fit(DataLoader(load("digits"), 100, **options), epochs=3)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """By `kill -9`, again and again, with a batch on its way; against a run without prefetch."""

    def run(folder: str, steps: int, prefetch: bool) -> int:
        arguments = [str(tmp_path / folder), str(steps), str(prefetch)]
        return subprocess.run([sys.executable, "-c", RUN, *arguments], check=False).returncode

    assert run("whole", 0, False) == 0
    deaths = 0
    while (code := run("killed", 17, True)) == -signal.SIGKILL:
        deaths += 1
    assert (code, deaths) == (0, 2)
    names = ("model.safetensors", "best.safetensors")
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
