"""What a notebook shows of nnx's objects."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import training

import nnx
from nnx import layers as L
from nnx import train


class Reader(HTMLParser):
    """Raises unless each tag is closed in turn; the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def shown(of: Any) -> tuple[str, list[list[str]]]:
    html = of._repr_html_()
    return unescape(re.sub("<[^>]*>", " ", html)), Reader(html).rows


def test_a_tensor(backend: nnx.Backend) -> None:
    text, _ = shown(nnx.Tensor(nnx.asarray([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True))
    assert " ".join(text.split()) == (
        f"Tensor (2, 2) float32, {backend.name}, requires grad [[1. 2.] [3. 4.]]"
    )
    text, _ = shown(nnx.Parameter([0.5]))
    assert text.split() == ["Parameter", "(1,)", "float32,", f"{backend.name},", "requires", "grad",
                            "[0.5]"]  # fmt: skip
    assert shown(nnx.Tensor(nnx.asarray(7)))[0].split()[-1] == "7"


@pytest.mark.parametrize("shape", [(2000,), (50, 60), (5, 4000), (4000, 5), (20, 20, 20)])
def test_a_large_tensor_is_shortened(shape: tuple[int, ...], backend: nnx.Backend) -> None:
    """The text is NumPy's own for the whole array, or for the first of the matrices in it."""
    values = np.random.default_rng(0).integers(0, 100, shape)
    text, _ = shown(nnx.Tensor(nnx.asarray(values)))
    matrix = values[0] if len(shape) == 3 else values
    expected = np.array2string(matrix, threshold=0)
    assert re.sub(r" +", " ", expected) in re.sub(r" +", " ", text)
    assert ("[0]:" in text) == (len(shape) == 3)


def test_a_large_tensor_on_a_library_with_the_standard_alone(strict: str) -> None:
    for shape in (3, 5), (2000,), (50, 60), (20, 20, 20):
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        on_strict = shown(nnx.Tensor(nnx.asarray(values, backend=strict)))[0]
        assert on_strict == shown(nnx.Tensor(values))[0].replace("numpy", "strict")


def test_of_a_huge_tensor_only_corners_are_read() -> None:
    huge = np.broadcast_to(np.float32(1.5), (10**6, 10**7))  # 40 TB, were it copied
    assert "[1.5 1.5 1.5 ... 1.5 1.5 1.5]" in shown(nnx.Tensor(huge))[0]


def test_a_layer_and_its_summary() -> None:
    net = L.Sequential(L.Linear(64, 100), L.Relu())
    text, rows = shown(net)
    assert rows == [
        ["name", "layer", "parameters", "bytes", "trained"],
        ["0", "Linear(64, 100)", "6,500", "26,000", "yes"],
        ["1", "Relu()", "0", "0", "-"],
    ]
    assert "6,500 parameters (26,000 bytes), 6,500 trained" in text
    assert shown(net.summary((64,)))[1][1][2] == "(N, 100)"


def test_names_are_escaped() -> None:
    class Odd(L.Layer):
        def __init__(self) -> None:
            self.inner = {"<script>&": L.Relu()}

        def forward(self, x: Any) -> Any:
            return self.inner["<script>&"](x)

    assert shown(Odd())[1][1][0] == "inner.<script>&"
    assert "<script>" not in Odd()._repr_html_()


def test_a_plan() -> None:
    step = nnx.capture(lambda x: nnx.multiply(nnx.relu(x), 2.0))
    for _ in range(2):
        step(np.ones((2, 3), np.float32))
    text, rows = shown(step.plan())
    assert [row[0] for row in rows] == [
        "kernels", "fused", "buffers", "planned", "eager", "inputs",
    ]  # fmt: skip
    assert rows[0][1].startswith("2: ") and "def replay():" in text


def test_a_run_and_its_evaluation() -> None:
    trainer = training.trainer()
    assert "before its first epoch" in shown(trainer)[0]
    trainer.fit(training.digits("train", 500), training.digits("test", 500), epochs=2)
    _, (head, first, second) = shown(trainer)
    assert head == list(trainer.history[0]) and [first[0], second[0]] == ["1", "2"]
    assert second[head.index("test_loss")] == f"{trainer.history[1]['test_loss']:.4g}"
    found = trainer.evaluation
    assert found is not None
    text, _ = shown(found)
    assert f"held-out accuracy {100 * found.accuracy:.2f} %" in text and " -> " in text
    _, rows = shown(train.Evaluation({"loss": 0.25}))
    assert rows == [["loss"], ["0.25"]]
