"""A run that is killed, at any moment and as often as you like, ends as one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnx import cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")

SHORT = ("--epochs", "2", "--model", "mlp:8", "--batch-size", "200", "--save-every", "3")
CHARS = (
    "--task", "chars", "--model", "gpt:1,2,8", "--context", "4", "--steps", "5", "--epochs", "2",
    "--save-every", "3", "--dropout", "0.2", "--generate", "0",
)  # fmt: skip
EPOCHS = 150
LONG = ("--epochs", str(EPOCHS), "--model", "mlp:30", "--save-every", "5", "--clip-norm", "1")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


def result(folder: Path) -> tuple[Any, ...]:
    """What the run ended in; the files' bytes, and the metrics without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(x).items() if "second" not in k} for x in lines]
    names = ("model.safetensors", "best.safetensors")
    return metrics, *[(folder / name).read_bytes() for name in names]


def forked(f: Callable[[], object]) -> int:
    """Run f in a child; its exit code, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the BLAS has threads; it can fork
        child = os.fork()
    if child == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            f()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(count: int, folder: Path, arguments: list[str]) -> int:
    """Train, and die at that file operation in the folder, before it happens."""

    def f() -> None:
        left = [count]

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in EVENTS and str(args[0]).startswith(str(folder)):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        cli.main(arguments)

    return forked(f)


@pytest.mark.filterwarnings("ignore:.*fork")  # threads of other tests, such as PyTorch's
@pytest.mark.parametrize(("task", "every"), [("images", 1), ("chars", 5)])
def test_killed_at_every_file_operation(task: str, every: int, tmp_path: Path) -> None:
    """Then resumed and killed at the same operation, until it comes through."""
    whole, command = tmp_path / "whole", ["train", *(SHORT if task == "images" else CHARS)]
    if task == "chars":
        (tmp_path / "text").write_text("to be, or not to be\n" * 30)
        command += ["--data", str(tmp_path / "text")]
    assert forked(lambda: cli.main([*command, "--out", str(whole)])) == 0
    deaths = 0
    for count in range(1, 200, every):
        folder = tmp_path / f"{count}"
        code = killed_at(count, folder, [*command, "--out", str(folder)])
        if code == 0:
            break
        assert code == -signal.SIGKILL
        deaths += 1
        if not (folder / "config.json").exists():  # nothing has begun
            continue
        assert killed_at(count + 3, folder, ["train", "--resume", str(folder)]) in (0, -9)
        assert forked(lambda folder=folder: cli.main(["train", "--resume", str(folder)])) == 0
        assert result(folder) == result(whole), count
        assert sorted(os.listdir(folder)) == sorted(os.listdir(whole)), count
    assert deaths > 30 // every and result(folder) == result(whole)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """A process of its own each time, as a user's is."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nnx", "train"]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    done = subprocess.run(
        [*command, *LONG, "--out", str(whole)], env=environment, check=True, capture_output=True
    )
    assert done.stdout.count(b"\nepoch ") == EPOCHS
    rng, kills, arguments = random.Random(0), 0, [*LONG, "--out", str(folder)]
    while True:
        run = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert run.stdout is not None
        lines, passed = rng.randrange(1, EPOCHS // 5), 0
        for line in run.stdout:
            passed += line.startswith(b"epoch ")
            if passed == lines:
                time.sleep(rng.uniform(0, 0.01))  # the end of an epoch, or within the next ones
                run.kill()
        run.stdout.close()
        if run.wait() == 0:
            break
        assert run.returncode == -signal.SIGKILL
        kills += 1
        if (folder / "config.json").exists():
            arguments = ["--resume", str(folder)]
    assert kills >= 2 and result(folder) == result(whole)
