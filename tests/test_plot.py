"""What the pictures hold: their axes' data and words, not their pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import digits, network

import nnx
from nnx import layers as L
from nnx import plot

pytest.importorskip("matplotlib")

HISTORY = [
    {"epoch": 1, "train_loss": 0.9, "test_loss": 1.0, "train_accuracy": 0.5, "lr": 0.1},
    {"epoch": 2, "train_loss": 0.4, "test_loss": 0.6, "train_accuracy": 0.8, "lr": 0.01},
]


def lines(ax: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


def words(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def drawn(figure: Any) -> list[Any]:
    """Its axes but the colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def title(figure: Any) -> str:
    return str(figure.get_suptitle())


def refused(f: Any, *given: Any, **options: Any) -> str:
    with pytest.raises(nnx.NnxError) as error:
        f(*given, **options)
    return f"{type(error.value).__name__}: {error.value}"


def test_curves() -> None:
    loss, accuracy, rate = plot.curves(HISTORY).axes
    assert lines(loss) == {"training": [[1, 0.9], [2, 0.4]], "held out": [[1, 1.0], [2, 0.6]]}
    assert lines(accuracy) == {"training": [[1, 0.5], [2, 0.8]]}
    assert [ax.get_ylabel() for ax in (loss, accuracy, rate)] == [
        "loss", "accuracy", "learning rate",
    ]  # fmt: skip
    assert {ax.get_xlabel() for ax in (loss, accuracy, rate)} == {"epoch"}
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "held out"]
    assert rate.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.01]]


def test_curves_of_a_folder(tmp_path: Path) -> None:
    run = nnx.Trainer(net := network(), nnx.optim.Adam(net.parameters()), folder=tmp_path)
    run.fit(digits(), digits("test"), epochs=2)
    loss = plot.curves(tmp_path).axes[0]
    assert lines(loss)["held out"] == [[e["epoch"], e["test_loss"]] for e in run.history]
    assert lines(loss) == lines(plot.curves(run.history).axes[0])


def test_curves_of_what_is_no_history(tmp_path: Path) -> None:
    assert "the history has 0 entries, expected at least one" in refused(plot.curves, [])
    assert "has no train_loss; expected trainer.history" in refused(plot.curves, [{"epoch": 1}])
    assert refused(plot.curves, 7) == (
        "OptionError: curves: history is a int, expected trainer.history, or a run's folder"
    )
    assert refused(plot.curves, tmp_path / "no").startswith("DataError: curves: there is no run in")
    for damaged in ('{"epoch": 1e999, "train_loss": 1}', '{"epoch": 1, "train_loss": "a"}'):
        (tmp_path / "metrics.jsonl").write_text(damaged)
        assert "curves: entry 0 of the history has " in refused(plot.curves, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000)
    assert "metrics.jsonl' is not what nnx writes: " in refused(plot.curves, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{1")
    assert "metrics.jsonl' is not what nnx writes: " in refused(plot.curves, tmp_path)


def test_confusion() -> None:
    counts = np.array([[8, 2, 0], [0, 10, 0], [3, 0, 7]])
    (ax,) = drawn(plot.confusion(nnx.asarray(counts), classes=["cat", "dog", "cow"]))
    assert ax.get_title() == "5 of 30 wrong: 16.67 %"
    at = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in ax.texts}
    assert at == {(0, 0): "8", (0, 1): "2", (1, 1): "10", (2, 0): "3", (2, 2): "7"}
    shade = ax.images[0].get_array()
    assert shade.mask.tolist() == np.eye(3, dtype=bool).tolist()
    assert shade[2, 0] == 30 and shade[0, 1] == 20 and shade[0, 2] == 0
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog", "cow"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("taken for", "class")


def test_confusion_of_an_evaluation_and_of_many_classes() -> None:
    found = nnx.train.evaluate(network(), digits("test", 100))
    (ax,) = drawn(plot.confusion(found))
    assert sum(map(int, words(ax))) == found.counts.sum() and len(ax.get_xticklabels()) == 10
    (ax,) = drawn(plot.confusion(np.eye(50, dtype=int)))
    assert words(ax) == [] and ax.get_title() == "0 of 50 wrong: 0.00 %"


def test_confusion_of_other_things() -> None:
    assert "have shape (2, 3), expected (C, C): an Evaluation, or nnx.metrics" in refused(
        plot.confusion, np.ones((2, 3))
    )
    assert refused(plot.confusion, np.eye(2), classes=["a"]) == (
        "OptionError: confusion: 1 names in classes, expected 2"
    )
    assert "has no confusion matrix" in refused(plot.confusion, nnx.train.Evaluation({"loss": 1.0}))


class Echo(L.Layer):
    """Gives the first three numbers of a row as scores."""

    def forward(self, x: Any) -> Any:
        return x[:, :3]


def test_mistakes() -> None:
    x = np.zeros((4, 6), "float32")
    x[0, 1] = x[2, 0] = 1.0  # taken for 1 and 0
    x[1, 2], x[3, 2] = 5.0, 9.0  # for 2, surely; the last rightly
    figure = plot.mistakes(Echo(), (x, np.array([0, 0, 1, 2])), image_shape=(2, 3))
    assert title(figure) == "3 of 4 wrong\nclass \u2192 taken for"
    e = np.exp([1.0, 5.0]) / (np.exp([1.0, 5.0]) + 2)
    assert [ax.get_title() for ax in figure.axes] == [
        f"0 \u2192 2  {100 * e[1]:.0f} %", f"0 \u2192 1  {100 * e[0]:.0f} %",
        f"1 \u2192 0  {100 * e[0]:.0f} %",
    ]  # fmt: skip
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), x[1].reshape(2, 3))
    figure = plot.mistakes(
        Echo(), (nnx.asarray(x), [0, 0, 1, 2]), count=1, image_shape=(2, 3), classes="abc"
    )
    assert title(figure) == "3 of 4 wrong; the surest 1\nclass \u2192 taken for"
    assert [ax.get_title() for ax in figure.axes] == [f"a\n\u2192 c  {100 * e[1]:.0f} %"]


def test_mistakes_of_probabilities_and_of_a_data_set() -> None:
    """A row that sums to 1 is not put through softmax again."""
    x = np.array([[[0.2, 0.8], [0.0, 0.0]]], "float32").reshape(1, 4)
    figure = plot.mistakes(Echo(), nnx.data.ArrayDataset(x, [0], image_shape=(1, 4)))
    assert figure.axes[0].get_title() == "0 \u2192 1  80 %"
    assert figure.axes[0].images[0].get_array().shape == (1, 4)


def test_no_mistakes_and_images_that_are_not_flat() -> None:
    x = np.eye(3, dtype="float32").reshape(3, 1, 3)
    model = L.Sequential(L.Flatten(), Echo())
    assert title(plot.mistakes(model, (x, np.arange(3)))) == "0 of 3 wrong"
    figure = plot.mistakes(model, (x, np.array([1, 1, 2])))
    assert figure.axes[0].images[0].get_array().shape == (1, 3)


def test_mistakes_in_colour() -> None:
    x = np.zeros((1, 3, 2, 2), "float32")
    x[0, 0, 0, 1], x[0, 2, 1, 1] = 1, -1
    model = L.Sequential(L.Flatten(), Echo())
    for given, shape in ((x, None), (x.reshape(1, 12), (3, 2, 2))):
        figure = plot.mistakes(model, (given, np.array([0])), image_shape=shape)
        image = figure.axes[0].images[0].get_array()
        assert image.tolist() == [[[0.5, 0.5, 0.5], [1, 0.5, 0.5]], [[0.5] * 3, [0.5, 0.5, 0]]]
    figure = plot.mistakes(model, (x[:, :1], np.array([0])))
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 1], [0, 0]]


def test_mistakes_of_other_things() -> None:
    x, t = np.zeros((2, 6), "float32"), np.array([0, 1])
    assert refused(plot.mistakes, Echo(), (x, t)) == (
        "OptionError: mistakes: a row of 6 numbers is no square image; if it is an image, give "
        "image_shape=(height, width)"
    )
    assert (
        "a row has 6 numbers, image_shape is (2, 2); expected (height, width) or (1 or 3, height, "
        "width) whose product is 6" in refused(plot.mistakes, Echo(), (x, t), image_shape=(2, 2))
    )
    given = (x, t + 2)
    assert "the model gives (2, 3) for class ids up to 3, expected (N, C) scores" in refused(
        plot.mistakes, Echo(), given, image_shape=(2, 3)
    )
    assert "images is a ndarray, expected an ArrayDataset or a pair (x, t)" in refused(
        plot.mistakes, Echo(), x
    )
    assert "x has shape (2, 6) and t (1,), int64; expected at least one image" in refused(
        plot.mistakes, Echo(), (x, t[:1])
    )
    assert "mistakes: count=0, expected an int of at least 1" in refused(
        plot.mistakes, Echo(), (x, t), count=0
    )
    assert "2 names in classes, expected at least 3" in refused(
        plot.mistakes, Echo(), (x, t), image_shape=(2, 3), classes="ab"
    )


def test_files(tmp_path: Path) -> None:
    for suffix, start in (
        (".png", b"\x89PNG"),
        (".svg", b"<?xml"),
        (".pdf", b"%PDF"),
        (".PNG", b"\x89P"),
    ):
        plot.curves(HISTORY, tmp_path / f"a{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(start)
    assert refused(plot.curves, HISTORY, "a.jpg") == (
        "OptionError: curves: the path 'a.jpg' ends in '.jpg', expected one of .png, .svg, .pdf"
    )
    assert "there is no folder" in refused(plot.curves, HISTORY, tmp_path / "no" / "a.png")
    assert plot.curves(HISTORY)._repr_png_().startswith(b"\x89PNG"), "in a notebook"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    assert refused(plot.confusion, np.eye(2)) == (
        "PackageError: confusion: pictures need the package matplotlib, which is not installed: "
        "install nnx with the extra plot, `pip install '.[plot]'`"
    )


def test_no_state_is_left_and_nothing_is_imported_before() -> None:
    code = (
        "import json, sys, nnx; before = 'matplotlib' in sys.modules; "
        "nnx.plot.confusion([[1, 2], [3, 4]])._repr_png_(); "
        "print(json.dumps([before, 'matplotlib.pyplot' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]


def test_any_bytes_in_a_runs_metrics(tmp_path: Path) -> None:
    """Curves, or an error of nnx."""
    line = b'{"epoch": 1, "step": 5, "train_loss": 1.0, "lr": 0.1, "seconds": 1.0}\n'
    rng, refusals = np.random.default_rng(0), 0
    for _ in range(60):
        content = bytearray(line + line.replace(b"1,", b"2,", 1))
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(256)
        (tmp_path / "metrics.jsonl").write_bytes(content)
        try:
            plot.curves(tmp_path)
        except nnx.NnxError:
            refusals += 1
    assert 0 < refusals < 60
