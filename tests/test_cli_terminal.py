"""The command and what it runs in: encodings, a terminal, Ctrl-C, a closed pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import QUICK, nnx_command

from nnx import cli, report, train
from nnx.train.folder import FILES


@pytest.mark.parametrize("encoding", ["cp949", "ascii", "utf-16"])
def test_output_survives_any_encoding(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "\uc2e4\ud589 \u00fc \U0001f9e0"
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("the file system cannot spell it")
    done = nnx_command(*QUICK, "--out", str(folder), encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "saved to" in done.stdout.decode(encoding)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["arguments"]["out"] == str(folder)
    failed = nnx_command(*QUICK, "--out", str(folder), encoding=encoding)
    assert failed.returncode == 2 and "not empty" in failed.stderr.decode(encoding)
    assert nnx_command("info", encoding=encoding).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process on Windows")
@pytest.mark.parametrize("with_folder", [True, False])
def test_ctrl_c(with_folder: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "nnx", "train", "--epochs", "100000"]
    command += ["--out", str(folder)] if with_folder else []
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("epoch"):
            break
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert error.startswith("nnx: interrupted after ") and error.count("\n") == 1
    if not with_folder:
        assert error.endswith("; nothing was saved: give --out DIR to keep a run\n")
        return
    assert error.endswith(f"; go on with: nnx train --resume {folder}\n")
    step = int(error.split()[4].rstrip(";"))
    saved = train.checkpoint.read(folder / "checkpoint.safetensors")
    assert saved.about["position"]["step"] == step
    assert sorted(os.listdir(folder)) == sorted(FILES)


def test_ctrl_c_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnx.data.load", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "nnx: interrupted\n"


def test_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(report, "INTERVAL", 0.0)
    assert cli.main([*QUICK]) == 0
    shown = capsys.readouterr()
    assert shown.err.isascii()
    assert "epoch 2/2: 100%" in shown.err and "images/s, loss " in shown.err
    assert "1438/1438" in shown.err
    assert shown.out.count("\nepoch") == 2


def test_closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nnx", "info"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
