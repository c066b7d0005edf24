"""Saving where it cannot be done, or only in part: the old file stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_io import net, state_bytes

import nnx
from nnx import files
from nnx import layers as L


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    nnx.save(net(), path)
    return path


def check_old_file_stays(folder: Path, path: Path, match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(nnx.DataError, match=match):
        nnx.save(net(seed=9), path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(folder)) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(
    call: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    check_old_file_stays(saved.parent, saved, "No space left on device; nothing was changed")


def test_interrupted_write_leaves_no_temporary_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    before = saved.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        nnx.save(net(seed=9), saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_read_only_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(nnx.DataError, match="Permission denied; nothing was changed"):
        nnx.save(net(), saved)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX's")
def test_write_that_the_system_cuts_short(saved: Path) -> None:
    """A real failure half way: the process may not write files of more than 1,000 bytes."""
    before = saved.read_bytes()
    code = (
        "import resource, sys, nnx\n"
        "from nnx import layers as L\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    nnx.save(L.Linear(100, 100), sys.argv[1])\n"
        "except nnx.DataError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout and "nothing was changed" in done.stdout
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_path_without_a_folder_and_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(nnx.DataError, match=r"there is no folder .*no'; make it"):
        nnx.save(net(), tmp_path / "no" / "x")
    with pytest.raises(nnx.DataError, match="it is a folder; give a file's path"):
        nnx.save(net(), tmp_path)
    with pytest.raises(nnx.DataError, match="null byte"):
        nnx.save(net(), "a\0b")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null here")
def test_device_is_not_replaced() -> None:
    with pytest.raises(nnx.DataError, match="it is a device or pipe"):
        nnx.save(net(), "/dev/null")


def test_link_stays_a_link(saved: Path) -> None:
    link = saved.with_name("latest")
    try:
        link.symlink_to(saved.name)
    except OSError:
        pytest.skip("links need a privilege here")
    nnx.save(net(seed=3), link)
    assert link.is_symlink()
    model = net()
    nnx.load(model, saved)
    assert state_bytes(model) == state_bytes(net(seed=3))


def test_dtype_that_has_no_place_in_a_file(tmp_path: Path) -> None:
    class Odd(L.Layer):
        def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
            return {"z": np.zeros(2, np.complex64)}

    with pytest.raises(nnx.DataError, match="'z' is complex64, which nnx does not save"):
        nnx.save(Odd(), tmp_path / "x")


def test_reason_of_an_error_without_text_from_the_system() -> None:
    assert files.reason(OSError("plain")) == "plain"
