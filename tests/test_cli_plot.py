"""`nnx train --plot`."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import error_of
from training import digits, network

import nnx
from nnx import cli, plot
from nnx import layers as L
from nnx.cli import pictures
from nnx.train.folder import PICTURES

pytest.importorskip("matplotlib")

OPTIONS = ("--epochs", "1", "--model", "mlp:10", "--batch-size", "200")


def drawn(folder: Path) -> set[str]:
    found = {p.name for p in folder.glob("*.png")}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in found)
    return found


def test_pictures_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert cli.main(["train", *OPTIONS, "--plot", "--out", str(folder)]) == 0
    assert drawn(folder) == set(PICTURES)
    assert f"pictures: {', '.join(PICTURES)}\n" in capsys.readouterr().out
    assert cli.main(["train", *OPTIONS, "--overwrite", "--out", str(folder)]) == 0
    assert not drawn(folder), "an older run's pictures go"
    assert cli.main(["train", "--resume", str(folder), "--plot"]) == 0
    assert drawn(folder) == set(PICTURES), "of a run that was complete"


def test_of_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Curves alone: a text has no images and no classes to take for one another."""
    (tmp_path / "text").write_text("to be, or not to be\n" * 30)
    options = ["--model", "gpt:1,2,8", "--context", "4", "--steps", "3", "--generate", "0"]
    command = ["train", "--task", "chars", "--data", str(tmp_path / "text"), *options]
    command += ["--out", str(tmp_path / "run")]
    assert cli.main([*command, "--epochs", "2", "--plot"]) == 0
    assert drawn(tmp_path / "run") == {"curves.png"}
    assert "pictures: curves.png\n" in capsys.readouterr().out
    assert cli.main([*command, "--epochs", "1", "--overwrite"]) == 0
    assert not drawn(tmp_path / "run"), "an older run's pictures go"
    assert cli.main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2", "--plot"]) == 0
    assert drawn(tmp_path / "run") == {"curves.png"}


def test_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error_of(["train", "--plot"], capsys) == (
        "--plot writes pictures into the run's folder: say where with --out DIR"
    )
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    assert error_of(["train", "--plot", "--out", str(tmp_path / "run")], capsys) == (
        "--plot: pictures need the package matplotlib, which is not installed: install nnx with "
        "the extra plot, `pip install '.[plot]'`"
    )
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_images(tmp_path: Path) -> None:
    net = network()
    run = nnx.Trainer(net, nnx.optim.Adam(net.parameters()))
    run.fit(digits(), digits("test"), epochs=1)
    data = nnx.data.load("digits", split="test")
    rows = nnx.data.ArrayDataset(data.x, data.t, 10, name="rows")
    assert run.evaluation is not None
    assert pictures.of_images(run, rows, run.evaluation, str(tmp_path)) == [
        "pictures: curves.png, confusion.png, activations.png",
        "no mistakes.png: rows does not hold images",
        "no weights.png: rows does not hold images",
    ]
    assert drawn(tmp_path) == {"curves.png", "confusion.png", "activations.png"}


def test_a_picture_that_cannot_be_made_stops_no_other(tmp_path: Path) -> None:
    """A data set whose image_shape was set to what is not that of its rows."""
    net = L.Sequential(L.Linear(64, 3), L.Linear(3, 10))
    run = nnx.Trainer(net, nnx.optim.Adam(net.parameters()))
    run.fit(digits(), digits("test"), epochs=1)
    odd = nnx.data.load("digits", split="test")
    odd.image_shape = (8, 4)
    assert run.evaluation is not None
    said = pictures.of_images(run, odd, run.evaluation, str(tmp_path))
    assert said[0] == "pictures: curves.png, confusion.png, activations.png"
    assert said[1].startswith("no mistakes.png: mistakes: a row has 64 numbers")
    assert said[2].startswith("no weights.png: weights: a row has 64 numbers")
