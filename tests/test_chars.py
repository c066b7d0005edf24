"""`nnx train --task chars`, and what its run is for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import error_of

from nnx import cli

TEXT = "the cat sat on the mat.\n" * 60
TINY = ("train", "--task", "chars", "--model", "gpt:1,2,16", "--context", "8", "--steps", "5",
        "--epochs", "3", "--generate", "20", "--threads", "1")  # fmt: skip


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
