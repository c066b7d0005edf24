"""Downloads from a server on this machine that cuts, corrupts, refuses, or is not there."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_server import FILES, IMAGES, Handler, released
from test_cli import error_of

from nnx import cli
from nnx.data import download, load
from nnx.data.download import SOURCES, Source
from nnx.errors import DataError

pytest.importorskip("pooch")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def serve(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """serve("cuts", "good"): mirrors in that order. The cache is tmp_path."""
    monkeypatch.setenv("NNX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    Handler.log.clear()
    sums = {f: (len(b), hashlib.sha256(b).hexdigest()) for f, b in FILES.items()}

    def serve(*how: str) -> None:
        mirrors = tuple(h if h.startswith("http") else f"{address}/{h}/" for h in how)
        for name in SOURCES:
            monkeypatch.setitem(SOURCES, name, Source(mirrors, sums))

    return serve


def asked(file: str = IMAGES) -> list[tuple[str, str | None]]:
    """How the file was asked for: (mirror, range)."""
    return [(p.split("/")[1], r) for p, r in Handler.log if p.endswith(file)]


def check(folder: Path, name: str = "mnist") -> None:
    """What `load` gives is what was served, and the cache holds that alone."""
    train = load(name)
    assert train.x.shape == (50, 784) and train.t.tolist() == [i % 10 for i in range(50)]
    held = {p.name: p.read_bytes() for p in (folder / name).iterdir()}
    assert held == {f: b for f, b in FILES.items() if f.startswith("train")}


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("how", ["good", "unmeasured"])
def test_files_come_once(serve: Any, tmp_path: Path, name: str, how: str) -> None:
    serve(how)
    check(tmp_path, name)
    assert asked() == [(how, None)]
    check(tmp_path, name)
    assert len(asked()) == 1
    assert len(load(name, split="test")) == 10
    assert len(os.listdir(tmp_path / name)) == 4


def test_what_is_cut_goes_on(serve: Any, tmp_path: Path) -> None:
    serve("cuts")
    assert 30_000 < len(FILES[IMAGES]) < 40_000
    check(tmp_path)
    assert asked() == [("cuts", r) for r in (None, "bytes=10000-", "bytes=20000-", "bytes=30000-")]


def test_a_later_run_goes_on(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve("cuts")
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with pytest.raises(DataError, match=r"cannot download train-images.*20,000 of .* bytes came"):
        load("mnist")
    assert os.listdir(tmp_path / "mnist") == [f"{IMAGES}.part"]
    check(tmp_path)
    assert [r for _, r in asked()] == [None, "bytes=10000-", "bytes=20000-", "bytes=30000-"]


def test_another_mirror_goes_on(serve: Any, tmp_path: Path) -> None:
    serve("ignores", "good")
    check(tmp_path)
    # Without ranges it starts again from nothing, and gets no further.
    assert asked() == [("ignores", None), ("ignores", "bytes=10000-"), ("good", "bytes=10000-")]


def test_a_range_that_was_not_asked_for_is_not_joined(serve: Any, tmp_path: Path) -> None:
    serve("shifts", "good")
    check(tmp_path)


def test_a_damaged_part_is_thrown_away(serve: Any, tmp_path: Path) -> None:
    serve("good")
    for part in (b"x" * 5000, b"x" * len(FILES[IMAGES]), b"x" * (len(FILES[IMAGES]) + 1)):
        for path in (tmp_path / "mnist").glob("*"):
            path.unlink()
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / f"{IMAGES}.part").write_bytes(part)
        check(tmp_path)


def test_a_damaged_file_in_the_cache_is_replaced(serve: Any, tmp_path: Path) -> None:
    serve("good")
    check(tmp_path)
    (tmp_path / "mnist" / IMAGES).write_bytes(FILES[IMAGES][:-1])
    check(tmp_path)


REFUSALS = {
    "corrupts": "it has another checksum",
    "404": "HTTP Error 404: Not Found",
    "500": "HTTP Error 500: Internal Server Error",
    "long": r"it is longer than [0-9,]* bytes",
    "nonsense": "220 ready",
    "misleads": "its answer makes no sense: Invalid IPv6 URL",
    "overflows": "its answer makes no sense: cannot fit",
    "starves": r"0 of [0-9,]* bytes came",
    "http://127.0.0.1:9/": ".*refused",
}


@pytest.mark.parametrize(("how", "why"), REFUSALS.items(), ids=REFUSALS)
def test_a_mirror_that_does_not_give_it(serve: Any, tmp_path: Path, how: str, why: str) -> None:
    serve(how)
    with pytest.raises(DataError) as caught:
        load("mnist")
    caught.match(
        rf"cannot download {IMAGES} of mnist \(http://.*: {why}.*\); try again later .* "
        r"or give the folder of its IDX files: load\('mnist', directory\), --data-dir DIR"
    )
    assert not (tmp_path / "mnist" / IMAGES).exists()
    serve(how, "good")
    check(tmp_path)


def test_a_server_that_falls_silent(serve: Any, tmp_path: Path) -> None:
    serve("stalls")
    check(tmp_path)
    assert asked()[:2] == [("stalls", None), ("stalls", "bytes=10000-")]


def test_two_processes_at_once(serve: Any, tmp_path: Path) -> None:
    """While another holds the part, a download is on its own."""
    fcntl = pytest.importorskip("fcntl")
    serve("good")
    (tmp_path / "mnist").mkdir()
    part = tmp_path / "mnist" / f"{IMAGES}.part"
    with open(part, "ab") as held:
        held.write(b"theirs")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert len(load("mnist")) == 50
        assert part.read_bytes() == b"theirs"


def test_two_threads_at_once(serve: Any, tmp_path: Path) -> None:
    serve("cuts")
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(load("mnist")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [50] * 3
    check(tmp_path)


def test_processes_at_once(serve: Any, tmp_path: Path) -> None:
    """Each ends with the whole files, whoever of them gets the part to go on with."""
    serve("cuts")
    program = (
        "import sys; from nnx.data import download, load; "
        f"download.SOURCES['mnist'] = download.Source(*{tuple(SOURCES['mnist'])!r}); "
        "sys.exit(len(load('mnist')) != 50)"
    )
    for _ in range(3):
        for path in (tmp_path / "mnist").glob("*"):
            path.unlink()
        made = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
        assert [process.wait() for process in made] == [0] * 4
        check(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(serve: Any, tmp_path: Path) -> None:
    serve("good")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(
            DataError, match=r"cannot keep mnist in .* set NNX_DATA_DIR to a folder"
        ):
            load("mnist")
    finally:
        tmp_path.chmod(0o700)


def test_a_cache_that_is_a_file(serve: Any, tmp_path: Path) -> None:
    serve("good")
    (tmp_path / "mnist").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot keep mnist in .* set NNX_DATA_DIR to a folder"):
        load("mnist")


def test_without_pooch(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        DataError, match=r"not installed .*: pip install pooch, or nnx with its extra \[data\]; or"
    ):
        load("mnist")


def test_the_cache_is_pooch_s_without_the_variable(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("good")
    monkeypatch.delenv("NNX_DATA_DIR")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    load("mnist")
    assert len(os.listdir(tmp_path / "cache" / "nnx" / "mnist")) == 2


def test_the_command(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve("good")
    options = ["train", "--data", "mnist", "--model", "linear", "--epochs", "1"]
    assert cli.main(options) == 0
    shown = capsys.readouterr()
    assert "mnist: 50 images to train on, 10 held out (its own test images)" in shown.out
    assert shown.err == ""
    serve("404")
    (tmp_path / "mnist" / IMAGES).unlink()
    assert "HTTP Error 404: Not Found" in error_of(options, capsys)


def test_a_line_of_progress_on_a_terminal(
    serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve("cuts")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    load("mnist")
    shown = capsys.readouterr()
    assert f"{IMAGES}:" in shown.err and "Downloading" not in shown.err and shown.out == ""


def test_pooch_is_imported_for_a_download_alone() -> None:
    code = "import sys, nnx, nnx.data; nnx.data.load('digits'); sys.exit('pooch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_of_files() -> None:
    for source in SOURCES.values():
        assert len(source.mirrors) >= 2 and all(m.endswith("/") for m in source.mirrors)
        assert len(source.files) == 4 and all(len(s) == 64 for _, s in source.files.values())
