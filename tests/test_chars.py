"""`nnx train --task chars`, and what its run is for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli import error_of

from nnx import cli
from nnx.data import RandomWindows

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
    crc = zlib.crc32(TEXT.encode())
    assert config["data"] == {"characters": "\n .acehmnost", "context": 8, "crc32": crc}
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


def kept(run: Path) -> tuple[Any, ...]:
    """What a run ended in: the files' bytes, and the figures without times."""
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
    return figures, *((run / f"{x}.safetensors").read_bytes() for x in ("model", "best"))


class Interrupted:
    """RandomWindows that press Ctrl-C while the given step of the run is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = -1
        whole = RandomWindows.batches

        def batches(loader: RandomWindows, epoch: int, start: int = 0) -> Iterator[Any]:
            for i, batch in enumerate(whole(loader, epoch, start), start):
                if epoch * len(loader) + i == self.at:
                    signal.raise_signal(signal.SIGINT)
                yield batch

        monkeypatch.setattr(RandomWindows, "batches", batches)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to itself on Windows")
def test_an_interrupted_run_ends_in_the_same_bits(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows, dropout, Adam's moments and the rate go on from any step, replayed or not."""
    whole, parts, another = tmp_path / "whole", tmp_path / "parts", tmp_path / "another"
    command = [*TINY, "--data", text, "--dropout", "0.2"]
    assert cli.main([*command, "--out", str(whole)]) == 0
    assert cli.main([*command, "--out", str(another), "--seed", "1"]) == 0
    keyboard = Interrupted(monkeypatch)
    arguments = [*command, "--out", str(parts), "--save-every", "4"]
    for keyboard.at in (0, 1, 4, 9, 12):  # an epoch has 5 steps
        assert cli.main(arguments) == 130
        assert f"interrupted after step {keyboard.at + 1}; go on with: nnx train --resume" in (
            capsys.readouterr().err
        )
        arguments = ["train", "--resume", str(parts), *(["--eager"] if keyboard.at == 4 else [])]
    keyboard.at = -1
    assert cli.main(arguments) == 0
    assert "resumed after 2 epochs, step 13" in capsys.readouterr().out
    assert kept(parts) == kept(whole) != kept(another)
    assert cli.main(["generate", str(parts)]) == cli.main(["generate", str(whole)]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


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


@pytest.fixture
def run(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A short run's folder."""
    folder = str(tmp_path / "short")
    assert cli.main([*TINY, "--data", text, "--epochs", "1", "--out", folder]) == 0
    capsys.readouterr()
    return folder


def generated(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["generate", *arguments]) == 0
    return capsys.readouterr().out


def test_what_is_drawn(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the seed; the likeliest at temperature 0, whatever the seed; nothing, if asked for."""
    draws = {generated(capsys, run, "--seed", seed) for seed in "01234"}
    assert len(draws) == 5
    likeliest = {generated(capsys, run, "--seed", s, "--temperature", "0") for s in "01234"}
    assert len(likeliest) == 1
    assert generated(capsys, run, "--prompt", "the", "--generate", "0") == "the\n"
    long = "the cat sat on the mat." * 3  # beyond the context of 8
    assert generated(capsys, run, "--prompt", long, "--generate", "5")[: len(long)] == long
    assert len(generated(capsys, run, "--prompt", "t", "--generate", "7")) == 1 + 7 + 1


def test_a_closed_pipe(run: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nnx", "generate", run]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_prompts_that_the_run_cannot_take(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for prompt, place in (("the Cat", 4), ("\u00e9", 0), ("cat\t", 3)):
        assert error_of(["generate", run, "--prompt", prompt], capsys) == (
            f"encode: character {prompt[place]!r} at place {place} of the text is none of the "
            f"vocabulary's 12: '\\n .acehmnost'"
        )
    for option, value in (("--temperature", "-1"), ("--temperature", "nan"), ("--generate", "-1")):
        assert f"argument {option}: expected a" in error_of(
            ["generate", run, option, value], capsys
        )


def test_a_text_that_changed(run: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(run, "config.json").read_bytes()
    resume = ["train", "--resume", run, "--epochs", "2"]
    for changed in (TEXT[:-1] + "!", TEXT.replace("c", "b"), TEXT[1:] + TEXT[0]):
        Path(text).write_text(changed)
        message = error_of(resume, capsys)
        assert message.startswith(
            f"the data of the run in {run!r} are no longer those that it began"
        )
        assert "crc32 was " in message and Path(run, "config.json").read_bytes() == config
    assert cli.main(["eval", run]) == 0, "of the same characters it can be evaluated"
    Path(text).write_text(TEXT[:-1] + "!")
    assert "encode: character '!' at place 1439 of the text" in error_of(["eval", run], capsys)
    Path(text).unlink()
    assert error_of(["eval", run], capsys) == f"{text} cannot be read (No such file or directory)"
    assert generated(capsys, run), "it needs no text"


def test_texts_that_do_not_do(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [*TINY, "--out", str(tmp_path / "run"), "--data"]
    assert error_of([*train, text, "--context", "200"], capsys) == (
        f"{text} has 1,440 characters, of which the last tenth, 144, is held out; --context 200 "
        f"needs at least 2,010 characters: give a longer text, or a smaller --context"
    )
    assert "cannot be read" in error_of([*train, str(tmp_path)], capsys)
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 500)
    assert "latin.txt is not text in UTF-8" in error_of(
        [*train, str(tmp_path / "latin.txt")], capsys
    )
    (tmp_path / "empty.txt").touch()
    assert "empty.txt is empty, expected text" in error_of(
        [*train, str(tmp_path / "empty.txt")], capsys
    )
    assert not (tmp_path / "run").exists()


def test_a_text_of_one_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a" * 90)
    assert cli.main([*TINY, "--data", str(tmp_path / "a.txt")]) == 0
    assert "\n" + "a" * 20 + "\n" in capsys.readouterr().out
