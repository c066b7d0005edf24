"""Data sets from a user's file: by `load`, and by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import error_of

from nnx import cli
from nnx.data import load
from nnx.errors import DataError, LabelError, OptionError, ShapeError


def table(path: Path, n: int = 60, names: tuple[str, ...] = ("low", "mid", "high")) -> Path:
    """Rows whose first column tells the class."""
    ids = np.arange(n) % len(names)
    noise = np.random.default_rng(0).uniform(-1, 1, (n, 2))
    lines = [f"{3 * i + a:.3f},{b:.3f},{names[i]}" for i, (a, b) in zip(ids, noise, strict=True)]
    path.write_text("\n".join(["size,other,label", *lines]) + "\n", "utf-8")
    return path


def images(path: Path, n: int = 60, dtype: Any = np.uint8) -> Path:
    t = np.arange(n) % 3
    x = np.zeros((n, 4, 5), dtype)
    x[np.arange(n), t] = 255
    np.savez(path, x=x, t=t)
    return path


def test_a_fifth_is_held_out(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    train, test, whole = (load(path, split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (48, 12, 60)
    rows = np.concatenate([train.x, test.x])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.x.tolist()))
    assert np.array_equal(load(str(path)).x, train.x)  # the same each time
    assert train.class_names == test.class_names == ("high", "low", "mid")
    assert (whole.name, test.name) == ("t.csv", "t.csv (held out)")


def test_images_become_rows_and_uint8_is_scaled(tmp_path: Path) -> None:
    whole = load(images(tmp_path / "i.npz"), split="all")
    assert (whole.x.shape, whole.image_shape, whole.white) == ((60, 20), (4, 5), 255)
    assert (whole.x.min(), whole.x.max(), whole.classes) == (0, 1, 3)
    train = load(images(tmp_path / "f.npz", dtype=np.float64))
    assert (train.x.dtype, train.x.max(), train.white) == (np.float64, 255, None)
    np.savez(tmp_path / "flat.npz", x=np.arange(6.0), t=np.eye(6))
    flat = load(tmp_path / "flat.npz", split="all")
    assert (flat.x.shape, flat.image_shape, flat.classes) == ((6, 1), None, None)


def test_classes_are_as_many_as_the_largest_says(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((4, 1)), t=[0, 999, 3, 3])
    assert load(tmp_path / "a.npz").classes == 1000
    for t in ([0, 1000], [-1, 1]):
        np.savez(tmp_path / "b.npz", x=np.ones((2, 1)), t=t)
        with pytest.raises(DataError, match=r"whole numbers from .* in 2 rows, expected class ids"):
            load(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", x=np.ones((2, 1)), t=[0, 1000])
    assert load(tmp_path / "b.npz", classes=1001).classes == 1001
    with pytest.raises(LabelError, match=r"b\.npz: t\[1\] is 1000"):
        load(tmp_path / "b.npz", classes=2)


def test_what_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    with pytest.raises(OptionError, match=r"split='valid'.*: expected 'train' or 'test' or 'all'"):
        load(path, split="valid")
    with pytest.raises(OptionError, match=r"t\.csv'\) is a file: leave the directory out"):
        load(path, tmp_path)
    with pytest.raises(OptionError, match=r"or the path of a \.npz or \.csv file"):
        load(tmp_path / "t.txt")
    with pytest.raises(OptionError, match=r"split='all'.*: expected 'train' or 'test'"):
        load("digits", split="all")
    np.savez(tmp_path / "none.npz", x=np.ones((0, 3)), t=np.ones(0, int))
    with pytest.raises(DataError, match=r"none\.npz has no rows, expected at least two"):
        load(tmp_path / "none.npz")
    with pytest.raises(ShapeError, match="has 1 rows: too few to hold 20% out"):
        load(table(tmp_path / "one.csv", 1))


@pytest.mark.parametrize("make", [lambda p: table(p / "t.csv"), lambda p: images(p / "i.npz")])
def test_train_eval_and_resume(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = make(tmp_path), tmp_path / "run"
    options = ["--model", "mlp:8", "--lr", "0.05", "--out", str(run)]
    assert cli.main(["train", "--data", str(path), "--epochs", "60", *options]) == 0
    shown = capsys.readouterr().out
    noun = "rows" if path.suffix == ".csv" else "images"
    assert f"{path}: 48 {noun} to train on, 12 held out (a fifth, at random)\n" in shown
    assert cli.main(["train", "--resume", str(run), "--epochs", "61"]) == 0
    capsys.readouterr()
    assert cli.main(["eval", str(run)]) == 0
    assert "held-out accuracy 100.00 % (error 0.00 %: 0 of 12 images)" in capsys.readouterr().out
    assert cli.main(["eval", str(run), "--data", str(path)]) == 0
    assert " of 60 images)" in capsys.readouterr().out


def test_eval_takes_the_names_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without some of the classes: ids are still the run's."""
    path, run = table(tmp_path / "t.csv"), tmp_path / "run"
    options = ["--model", "mlp:8", "--lr", "0.05", "--epochs", "60", "--out", str(run)]
    assert cli.main(["train", "--data", str(path), *options]) == 0
    form = json.loads((run / "config.json").read_text("utf-8"))["data"]
    assert form["class_names"] == ["high", "low", "mid"]
    lines = path.read_text("utf-8").splitlines()
    some = [lines[0]] + [line for line in lines if line.endswith(("mid", "low"))]
    (tmp_path / "some.csv").write_text("\n".join(some), "utf-8")
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--data", str(tmp_path / "some.csv")]) == 0
    assert "(error 0.00 %: 0 of 40 images)" in capsys.readouterr().out
    other = table(tmp_path / "other.csv", names=("low", "huge"))
    message = error_of(["eval", str(run), "--data", str(other)], capsys)
    assert "the target is 'huge', expected one of 'high', 'low', 'mid'" in message


def test_what_train_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "values.csv"
    path.write_text("1,0.5\n2,1.5\n3,2.5\n4,1\n", "utf-8")
    message = error_of(["train", "--data", str(path)], capsys)
    assert "the targets have shape (3, 1) and dtype float32, expected class ids" in message
    assert "absent.npz cannot be read" in error_of(["train", "--data", "absent.npz"], capsys)
    message = error_of(["train", "--data", str(path), "--data-dir", "x"], capsys)
    assert "is a file: leave the directory out" in message
