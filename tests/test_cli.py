"""The command as users run it. A process of its own wherever the environment matters."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import cli, train
from nnx.data import DataLoader
from nnx.train.folder import FILES

ROOT = Path(__file__).resolve().parent.parent
MNIST = Path(os.environ.get("NNX_MNIST_DIR", ROOT.parent / "shared" / "data" / "mnist"))
QUICK = ("train", "--epochs", "2", "--model", "mlp:20")


def nnx_command(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nnx", *arguments]
    return subprocess.run(command, capture_output=True, env=environment, check=False)


def error_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that fails with exit code 2."""
    capsys.readouterr()
    try:
        code: object = cli.main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("nnx: error: ") and shown.err.count("\n") == 1, shown.err
    return shown.err.removeprefix("nnx: error: ").rstrip()


def test_without_arguments_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    words = ("train", "eval", "predict", "info", "bench", "--version")
    assert all(word in shown for word in words)


def test_version() -> None:
    done = nnx_command("--version")
    assert done.stdout.decode().split() == ["nnx", nnx.__version__] and done.returncode == 0


def test_bench_is_handed_its_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--help"])
    assert exit_.value.code == 0 and "usage: nnx bench" in capsys.readouterr().out
    seen = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    monkeypatch.setattr("nnx.bench.main", main)
    assert cli.main(["bench", "--quick", "--ops", "relu"]) == 7
    assert seen == [["--quick", "--ops", "relu"]]


def test_default_run_on_digits() -> None:
    """No options, no terminal: a line per epoch, a summary, nothing on stderr."""
    done = nnx_command("train")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[0].endswith("359 held out (every fifth image)")
    assert lines[1].startswith("mlp:100: 7,510 parameters; adam, rate 0.001, cosine")
    assert [line.split()[1] for line in lines if line.startswith("epoch")][-1] == "30/30"
    (last,) = [line for line in lines if line.startswith("held-out accuracy")]
    assert float(last.split()[2]) >= 94
    assert any(" -> " in line and " of " in line for line in lines)


def test_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "run"
    options = ["--optimizer", "momentum", "--epochs", "8", "--model", "mlp:30", "--seed", "4"]
    options += ["--threads", "1"]
    before = nnx.get_num_threads()
    assert cli.main(["train", *options, "--out", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "backend numpy; threads 1\n" in shown and nnx.get_num_threads() == before
    assert sorted(os.listdir(folder)) == sorted(FILES)

    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["arguments"] == {
        "data": "digits", "data_dir": None, "model": "mlp:30", "epochs": 8, "seed": 4, "lr": 0.1,
        "optimizer": "momentum", "schedule": "cosine", "weight_decay": 0.0, "batch_size": 32,
        "backend": "numpy", "eager": False, "out": str(folder), "threads": 1, "clip_norm": None,
        "patience": None, "save_every": None, "plot": False, "task": "images", "context": None,
        "steps": None, "dropout": None, "generate": None, "temperature": None,
    }  # fmt: skip
    assert config["data"] == {
        "features": 64, "classes": 10, "image_shape": [8, 8], "white": 16,
    }  # fmt: skip
    assert config["versions"]["nnx"] == nnx.__version__
    assert config["versions"]["numpy"] == np.__version__
    assert config["backend"]["name"] == "numpy"
    assert datetime.fromisoformat(config["date"]).tzinfo is not None

    text = (folder / "metrics.jsonl").read_text("utf-8")
    metrics = [json.loads(line) for line in text.splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, 9))
    assert set(metrics[0]) == {
        "epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds",
        "rows_per_second", "lr",
    }  # fmt: skip
    assert metrics[-1]["train_accuracy"] > 0.95 and metrics[-1]["test_accuracy"] > 0.88
    assert f"held-out accuracy {100 * metrics[-1]['test_accuracy']:.2f} %" in shown

    model = train.build_model("mlp:30", 64, 10)
    nnx.load(model, folder / "model.safetensors")
    result = train.evaluate(model, DataLoader(nnx.data.load("digits", split="test"), 1000))
    assert result.accuracy == pytest.approx(metrics[-1]["test_accuracy"])
    assert result.loss == metrics[-1]["test_loss"]


def test_same_seed_same_files(tmp_path: Path) -> None:
    def model(name: str, seed: str) -> bytes:
        assert cli.main([*QUICK, "--seed", seed, "--out", str(tmp_path / name)]) == 0
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert model("a", "5") == model("b", "5") != model("c", "6")


def test_existing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty: give another one, resume" in error_of([*QUICK, *out], capsys)
    assert os.listdir(tmp_path) == ["notes.txt"]
    (tmp_path / "metrics.jsonl").write_text("old")
    assert cli.main([*QUICK, *out, "--overwrite"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_out_that_cannot_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    message = error_of([*QUICK, "--out", str(tmp_path / "file")], capsys)
    assert message.startswith("cannot use the folder") and "exists" in message
    message = error_of([*QUICK, "--out", str(tmp_path / "file" / "run")], capsys)
    assert message.startswith("cannot use the folder")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no read-only mode on Windows")
def test_read_only_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.geteuid() == 0:  # root may write everywhere

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refused)
    message = error_of([*QUICK, "--out", str(locked / "run")], capsys)
    assert message == f"cannot use the folder {str(locked / 'run')!r}: Permission denied"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--backend abacus", "no backend named 'abacus' is installed"),
        ("--optimizer lion", "unknown optimizer 'lion'; expected one of sgd, momentum, nesterov"),
        ("--model mlp:0", "unknown model 'mlp:0'; expected 'linear', or 'mlp:' with the sizes"),
        ("--schedule warm", "unknown schedule 'warm'; expected one of constant, cosine"),
        ("--data cifar", "load('cifar'): expected one of 'digits', 'fashion-mnist', 'mnist'"),
        ("--data mnist --data-dir /no/such", "neither train-images-idx3-ubyte nor train-images-i"),
        ("--data-dir x", "load('digits') is a part of nnx: leave the directory out"),
        ("--epochs -1", "argument --epochs: expected a whole number of at least 1, got '-1'"),
        ("--epochs 1.5", "argument --epochs: expected a whole number of at least 1, got '1.5'"),
        ("--batch-size 0", "argument --batch-size: expected a whole number of at least 1, got '0'"),
        ("--seed -1", "argument --seed: expected a whole number of at least 0, got '-1'"),
        ("--lr 0", "argument --lr: expected a number above 0, got '0'"),
        ("--lr nan", "argument --lr: expected a number above 0, got 'nan'"),
        ("--lr fast", "argument --lr: expected a number above 0, got 'fast'"),
        ("--weight-decay -1", "argument --weight-decay: expected a number of at least 0, got '-1'"),
        ("--fast", "unrecognized arguments: --fast; see `nnx --help`"),
        ("--model mlp:1000000000000", "out of memory: "),
    ],
)
def test_wrong_options(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert message in error_of(["train", *options.split(), "--out", str(out)], capsys)
    assert not out.exists()


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'fly'" in error_of(["fly"], capsys)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + sizes + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """200 and 50 images of 28x28, each class a bright row of its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    for prefix, n in (("train", 200), ("t10k", 50)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = np.zeros((n, 28, 28), np.uint8)
        images[np.arange(n), labels] = 255
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_idx_files(idx_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", "fashion-mnist", "--data-dir", str(idx_folder)]
    assert cli.main([*command, "--model", "linear", "--epochs", "10", "--lr", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "200 images to train on, 50 held out" in shown
    assert "held-out accuracy 100.00 % (error 0.00 %: 0 of 50 images)" in shown
    assert "most confused" not in shown


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"]
)
def test_truncated_idx_file(
    name: str, idx_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = idx_folder / name
    file.write_bytes(file.read_bytes()[:-20])
    message = error_of(["train", "--data", "mnist", "--data-dir", str(idx_folder)], capsys)
    assert name in message and ("truncated" in message or "damaged gzip" in message)


def test_divergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "run"))
    message = error_of(["train", "--optimizer", "sgd", "--lr", "1e30", *out], capsys)
    assert message.startswith("training diverges: the loss is ") and "(epoch 1, batch " in message
    assert "First not finite: the output of layer '" in message and "--clip-norm" in message
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.safetensors", "config.json"]


def test_info() -> None:
    done = nnx_command("info")
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("ascii")
    for expected in (
        f"nnx       {nnx.__version__}, ", f"numpy     {np.__version__}", "platform  ", "cpus ",
        "numpy (nnx", "available", "blas: ", "threads: ", "  safetensors ", "  threadpoolctl ",
    ):  # fmt: skip
        assert expected in shown


def test_info_says_why_a_backend_is_not_available(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnx.plugins import BackendInfo

    broken = BackendInfo("abacus", False, "no beads:\n  buy some", "abacus 1.0")
    monkeypatch.setattr("nnx.info.backends", lambda: {"abacus": broken})
    assert cli.main(["info"]) == 0
    assert "  abacus (abacus 1.0): not available: no beads: buy some\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    not MNIST.is_dir(), reason=f"no MNIST in {MNIST}; set NNX_MNIST_DIR to its folder"
)
def test_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", "mnist", "--data-dir", str(MNIST), "--model", "mlp:50"]
    assert cli.main([*command, "--epochs", "1", "--batch-size", "100"]) == 0
    shown = capsys.readouterr().out
    assert "60,000 images to train on, 10,000 held out" in shown
    (last,) = [line for line in shown.splitlines() if line.startswith("held-out accuracy")]
    assert float(last.split()[2]) > 91
