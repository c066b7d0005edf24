"""Characters and ids, windows of text, perplexity, generation; `nnx train --task chars`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import error_of

import nnx
from nnx import cli, data, metrics, train
from nnx.data import Characters, RandomWindows, Windows
from nnx.optim import schedules

TEXT = "the cat sat on the mat.\n" * 60
TINY = ("train", "--task", "chars", "--model", "gpt:1,2,16", "--context", "8", "--steps", "5",
        "--epochs", "3", "--generate", "20", "--threads", "1")  # fmt: skip


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
    (lambda: RandomWindows(Windows(np.arange(9), 4), 0, 1), nnx.OptionError,
     "RandomWindows: batch_size=0, expected an int of 1 or more"),
    (lambda: schedules.cosine(1.5), nnx.OptionError,
     "cosine: end=1.5, expected a part of the rate, in [0, 1)"),
    (lambda: train.generate(Counts(), [], 1, context=4), nnx.ShapeError,
     "generate: ids have shape (0,), expected (n,) with n >= 1"),
    (lambda: train.generate(Counts(), [1], 1, context=4, temperature=-1), nnx.OptionError,
     "generate: temperature=-1, expected a number >= 0"),
    (lambda: train.generate(Counts(), [1], 1, context=0), nnx.OptionError,
     "generate: context=0, expected an int of at least 1"),
    (lambda: train.build_gpt("gpt:4,4", 9, 8), nnx.OptionError,
     "unknown model of text 'gpt:4,4'; expected 'gpt:' with how many layers, heads and how wide, "
     "such as gpt:4,4,128"),
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


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "cat.txt").write_text(TEXT)
    return str(tmp_path / "cat.txt")


def test_train_eval_generate(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert cli.main([*TINY, "--data", text, "--out", run]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("cat.txt: 1,440 characters, 12 different ones; the last tenth held")
    assert sum(line.startswith("epoch ") for line in shown) == 3
    (summary,) = [line for line in shown if line.startswith("held-out loss ")]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == {"characters": "\n .acehmnost", "context": 8}
    assert cli.main(["eval", run]) == 0
    assert capsys.readouterr().out.splitlines() == ["cat.txt: 144 characters", summary]
    generate = ["generate", run, "--prompt", "the ", "--generate", "30"]
    assert cli.main(generate) == cli.main(generate) == 0
    out = capsys.readouterr().out
    assert out.startswith("the ") and out[: len(out) // 2] == out[len(out) // 2 :]
    assert "none of the vocabulary's 12" in error_of(["generate", run, "--prompt", "X"], capsys)
    assert "--prompt '' is empty" in error_of(["generate", run, "--prompt", ""], capsys)
    assert "let it go on with `nnx generate`" in error_of(["predict", run, "x.npy"], capsys)
    assert "--data-dir is for images" in error_of(["eval", run, "--data-dir", "x"], capsys)


def test_resumed_runs_end_alike(text: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = [*TINY, "--data", text]
    assert cli.main([*common, "--dropout", "0.1", "--out", str(whole)]) == 0
    stopped = [*common, "--dropout", "0.1", "--epochs", "1", "--out", str(parts)]
    assert cli.main(stopped) == 0
    with np.errstate(all="ignore"):
        assert cli.main(["train", "--resume", str(parts), "--epochs", "3"]) == 0
    history = [(d / "metrics.jsonl").read_text().splitlines() for d in (whole, parts)]
    assert [len(lines) for lines in history] == [3, 3]


def test_options_of_the_other_task(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(["train", "--context", "8"], capsys) == (
        "--context is for --task chars: leave it out, or give that task"
    )
    assert error_of(["train", "--task", "chars"], capsys) == (
        "--task chars learns a file of text: give it as --data FILE, without --data-dir"
    )
    run = str(tmp_path / "run")
    assert cli.main(["train", "--epochs", "1", "--model", "linear", "--out", run]) == 0
    assert "classify some with `nnx predict`" in error_of(["generate", run], capsys)


def test_learns_the_cat(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TINY, "--data", text, "--steps", "80", "--lr", "0.01"]) == 0
    (summary,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("held-out loss")]
    assert float(summary.split()[2]) < 0.8  # of ln 12 = 2.5 without any learning
