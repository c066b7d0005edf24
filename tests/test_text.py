"""Characters and ids, windows of text, perplexity, generation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import data, metrics, train
from nnx.data import Characters, RandomWindows, Windows
from nnx.optim import schedules


@settings(deadline=None, derandomize=True)
@given(st.text(min_size=1))
def test_characters_go_to_ids_and_back(text: str) -> None:
    vocabulary = Characters.of(text)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert set(ids.tolist()) == set(range(len(vocabulary)))
    assert vocabulary.decode(ids) == text
    assert list(vocabulary.characters) == sorted(set(text))


def test_windows_follow_one_another() -> None:
    windows = Windows(np.arange(11), 3)
    assert len(windows) == 3
    x, t = windows[np.array([0, 2])]
    assert x.tolist() == [[0, 1, 2], [6, 7, 8]] and t.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert len(Windows(np.arange(10), 3)) == 3 and len(Windows(np.arange(9), 3)) == 2


def test_windows_are_a_data_set() -> None:
    windows = Windows(np.arange(11), 3)
    for index in (1, slice(1, 3), [2, 0], -1):
        rows = np.arange(3)[index]
        x, t = windows[index]
        np.testing.assert_array_equal(x, 3 * rows[..., None] + np.arange(3))
        np.testing.assert_array_equal(t, x + 1)
    with pytest.raises(IndexError):
        windows[3]
    batches = [x.tolist() for x, _ in data.DataLoader(windows, 2)]  # type: ignore[arg-type]
    assert batches == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8]]]


def test_ids_of_any_backend_go_back(strict: str) -> None:
    vocabulary = Characters.of("abc")
    ids = nnx.asarray(vocabulary.encode("cab"), backend=strict)
    assert vocabulary.decode(ids) == vocabulary.decode(nnx.Tensor(ids)) == "cab"
    assert vocabulary.decode([]) == "" and len(Windows(ids, 1)) == 2


def test_random_windows_depend_on_seed_and_epoch_alone() -> None:
    loader = RandomWindows(Windows(np.arange(50), 4), 3, 6, seed=2)
    first = [(x.tolist(), t.tolist()) for x, t in loader.batches(1)]
    assert len(loader) == len(first) == 6
    assert first[4:] == [(x.tolist(), t.tolist()) for x, t in loader.batches(1, 4)]
    assert first != [(x.tolist(), t.tolist()) for x, t in loader.batches(2)]
    starts = [row[0] for x, _ in RandomWindows(Windows(np.arange(50), 4), 99, 9) for row in x]
    assert min(starts) == 0 and max(starts) == 45
    x, t = next(iter(loader))
    assert loader.epoch == 1 and np.array_equal(x + 1, t)


def test_perplexity() -> None:
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(2, 5, 7)), rng.integers(0, 7, (2, 5))
    p = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
    picked = np.take_along_axis(p, t[..., None], -1)
    expected = math.exp(-np.log(picked).mean())
    assert float(metrics.perplexity(y, t)) == pytest.approx(expected, rel=1e-12)
    assert float(metrics.perplexity(np.zeros((3, 8)), np.arange(3))) == pytest.approx(8)
    kept = metrics.perplexity(nnx.Tensor(y), t, ignore_index=int(t[0, 0]))
    assert float(kept) != pytest.approx(expected) and not isinstance(kept, nnx.Tensor)
    assert train.Evaluation({"loss": 2.0}).perplexity == math.exp(2)


def test_a_cosine_that_ends_above_0() -> None:
    factor = schedules.named("cosine:0.1")
    assert [factor(schedules.Progress(i, 10, 1)) for i in (0, 5, 10)] == pytest.approx(
        [1, 0.55, 0.1]
    )


class Counts(nnx.Layer):
    """Says that the next id is one more: logits (1, L, 5)."""

    def __init__(self) -> None:
        self.rows = nnx.Buffer(10 * np.roll(np.eye(5, dtype=np.float32), 1, axis=1))

    def forward(self, ids: Any) -> Any:
        return nnx.take(self.rows, ids)


@pytest.mark.parametrize("temperature", [0, 0.1])
def test_generate_goes_on(temperature: float) -> None:
    found = train.generate(Counts(), [3], 6, context=4, temperature=temperature)
    assert found.tolist() == [4, 0, 1, 2, 3, 4] and found.dtype == np.int64


def test_generate_draws_among_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    bold = train.generate(Counts(), [0], 200, context=4, temperature=50.0, rng=rng)
    assert len(set(np.diff(bold).tolist())) > 3
    one = train.generate(Counts(), [0], 5, context=4, temperature=50.0, top_k=1, rng=rng)
    assert one.tolist() == [1, 2, 3, 4, 0]


COUNTS: dict[str, Any] = {"batch_size": 2, "steps": 2}


class Says(nnx.Layer):
    """Gives the same logits whatever the ids."""

    def __init__(self, logits: Any) -> None:
        self.logits = nnx.Buffer(np.asarray(logits, np.float32))

    def forward(self, ids: Any) -> Any:
        return self.logits + 0.0


def says(logits: Any) -> Any:
    return lambda: train.generate(Says(logits), [1], 2, context=2, temperature=0)


def test_the_lowest_temperature_is_the_likeliest() -> None:
    found = train.generate(Counts(), [3], 4, context=4, temperature=5e-324)
    assert found.tolist() == [4, 0, 1, 2]
    masked = np.full((1, 2, 3), -np.inf)
    masked[..., 2] = 1
    assert says(masked)().tolist() == [2, 2]


ERRORS: list[tuple[Any, type[nnx.NnxError], str]] = [
    (lambda: Characters.of("ab").encode("abc"), nnx.LabelError,
     "encode: character 'c' at place 2 of the text is none of the vocabulary's 2: 'ab'"),
    (lambda: Characters.of("ab").decode([0, 2]), nnx.LabelError,
     "decode: id 2 at place 1, expected 0..1: the vocabulary has 2 characters"),
    (lambda: Characters("aa"), nnx.DataError,
     "Characters('aa'): expected at least one character, each once"),
    (lambda: Windows(np.arange(4), 4), nnx.ShapeError,
     "Windows: the ids have shape (4,), expected (n,) with n > 4, the window's length; give a "
     "longer text or a shorter context"),
    (lambda: Characters(""), nnx.DataError,
     "Characters(''): expected at least one character, each once"),
    (lambda: Characters.of(b"ab"), nnx.DataError,  # type: ignore[arg-type]
     "Characters: expected characters, as a str: sequence item 0: expected str instance, int "
     "found"),
    (lambda: Characters("ab").encode(b"ab"), nnx.DataError,  # type: ignore[arg-type]
     "encode: the text is a bytes, expected a str"),
    (lambda: Characters("ab").decode([0.0]), nnx.DtypeError,
     "decode: ids have shape (1,) and dtype float64, expected (n,) ints"),
    (lambda: Characters("ab").decode(np.array([0, -1])), nnx.LabelError,
     "decode: id -1 at place 1, expected 0..1: the vocabulary has 2 characters"),
    (lambda: Windows(np.ones((3, 3), int), 2), nnx.ShapeError,
     "Windows: the ids have shape (3, 3), expected (n,) with n > 2, the window's length; give a "
     "longer text or a shorter context"),
    (lambda: Windows("abcdef", 2), nnx.DtypeError,
     "Windows: the ids are <U6, expected ints, as Characters.encode(text) gives"),
    (lambda: Windows(np.arange(4), 0), nnx.OptionError,
     "Windows: length=0, expected an int of 1 or more"),
    *((lambda kept=kept: RandomWindows(Windows(np.arange(9), 4), **{**COUNTS, **kept}),
       nnx.OptionError, f"RandomWindows: {name}={value!r}, expected an int of {least} or more")
      for name, value, least in (
          ("batch_size", 0, 1), ("batch_size", 2.0, 1), ("batch_size", True, 1), ("steps", -1, 1),
          ("steps", "3", 1), ("steps", None, 1), ("seed", -1, 0), ("seed", None, 0))
      for kept in ({name: value},)),
    (lambda: RandomWindows(np.arange(9), 1, 1), nnx.OptionError,  # type: ignore[arg-type]
     "RandomWindows: dataset is a ndarray, expected nnx.data.Windows(ids, length)"),
    (lambda: schedules.cosine(1.5), nnx.OptionError,
     "cosine: end=1.5, expected a part of the rate, in [0, 1)"),
    (lambda: train.generate(Counts(), [], 1, context=4), nnx.ShapeError,
     "generate: ids have shape (0,), expected (n,) with n >= 1"),
    (lambda: train.generate(Counts(), [1], 1, context=4, temperature=-1), nnx.OptionError,
     "generate: temperature=-1, expected a number >= 0"),
    (lambda: train.generate(Counts(), [1], 1, context=0), nnx.OptionError,
     "generate: context=0, expected an int of 1 or more"),
    (lambda: train.generate(Counts(), [1.5], 1, context=4), nnx.DtypeError,
     "generate: the ids are float32, expected ints"),
    (lambda: train.generate(Counts(), [1], 1, context=4, top_k=True), nnx.OptionError,
     "generate: top_k=True, expected an int of 1 or more"),
    (says(np.zeros((1, 3))), nnx.ShapeError,
     "generate: of ids (1, 2) the model makes (1, 3), expected logits (1, 2, V): a number for each "
     "id that may come next"),
    (says(np.full((1, 2, 3), np.nan)), nnx.DataError,
     "generate: the model's logits are not finite: its parameters may be damaged, or its training "
     "diverged"),
    (lambda: train.build_gpt("gpt:4,4", 9, 8), nnx.OptionError,
     "unknown model of text 'gpt:4,4'; expected 'gpt:' with how many layers, heads and how wide, "
     "such as gpt:4,4,128"),
    (lambda: data.read_text("a\0"), nnx.DataError, "a\0 cannot be read (embedded null byte)"),
    (lambda: data.read_text("no/such"), nnx.DataError,
     "no/such cannot be read (No such file or directory)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=lambda v: str(v)[:40])
def test_messages(call: Any, kind: type[nnx.NnxError], message: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty, expected text"), (b"\xff\xfe", "is not text in UTF-8"),
])  # fmt: skip
def test_files_that_are_no_text(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(nnx.DataError, match=message):
        data.read_text(tmp_path / "x")
    with pytest.raises(nnx.DataError, match="cannot be read"):
        data.read_text(tmp_path)
