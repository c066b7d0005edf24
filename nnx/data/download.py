"""MNIST and Fashion-MNIST from the network, through pooch (the extra `data`).

A file is taken from the first mirror that gives it whole: what was cut goes on where it stopped, a
file with another checksum is thrown away. It gets its name in the cache only when it is whole.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

from ..errors import DataError
from ..files import reason


class Source(NamedTuple):
    """Where files lie: `mirrors` end in "/"; `files` has each one's bytes and SHA-256."""

    mirrors: tuple[str, ...]
    files: dict[str, tuple[int, str]]


# Checksums of the files as published; those of MNIST unpack to the authors' bytes.
SOURCES = {
    "mnist": Source(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            "train-images-idx3-ubyte.gz": (
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1-ubyte.gz": (
                28881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3-ubyte.gz": (
                1648877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                4542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        },
    ),
    "fashion-mnist": Source(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        {
            "train-images-idx3-ubyte.gz": (
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1-ubyte.gz": (
                29515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3-ubyte.gz": (
                4422102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                5148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        },
    ),
}
ATTEMPTS = 4  # at a mirror, while each brings the file further
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16
_one_thread = threading.Lock()


def fetch(name: str, split_prefix: str) -> str:
    """The folder in the cache that has the files of that data set whose names begin so.

    The cache is $NNX_DATA_DIR, or the system's place for caches. Raises DataError if pooch is not
    installed, no mirror gives a file, or the cache cannot be written.
    """
    pooch = _pooch(name)
    with _one_thread:
        return _fetch(pooch, name, split_prefix)


def _fetch(pooch: Any, name: str, split_prefix: str) -> str:
    cache = os.environ.get("NNX_DATA_DIR") or str(pooch.os_cache("nnx"))
    folder = os.path.join(cache, name)
    source = SOURCES[name]
    try:
        os.makedirs(folder, exist_ok=True)
        for file in source.files:
            if file.startswith(split_prefix):
                _from_mirrors(pooch, name, source, file, folder)
    except OSError as error:
        raise DataError(
            f"cannot keep {name} in {folder!r}: {reason(error)}; set NNX_DATA_DIR to a folder that "
            f"can be written"
        ) from error
    return folder


def _pooch(name: str) -> Any:
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f"load({name!r}) downloads with pooch, which is not installed ({error}): "
            f"pip install pooch, or nnx with its extra [data]; or give the folder of its IDX "
            f"files: load({name!r}, directory), --data-dir DIR"
        ) from error
    return pooch


def _from_mirrors(pooch: Any, name: str, source: Source, file: str, folder: str) -> None:
    size, sha256 = source.files[file]
    failed = []
    for mirror in source.mirrors:
        # A second time from the start if what was there already may have been the damage.
        for download in (_Download(size, resume=True), _Download(size, resume=False)):
            try:
                with _quiet(pooch):
                    pooch.retrieve(
                        mirror + file, f"sha256:{sha256}", file, folder, downloader=download
                    )
                return
            except _MirrorError as error:
                failed.append(f"{mirror}: {error}")
                break
            except ValueError:  # pooch's for a checksum
                if not download.resumed:
                    failed.append(f"{mirror}: it has another checksum")
                    break
    raise DataError(
        f"cannot download {file} of {name} ({'; '.join(failed)}); try again later (what has come "
        f"is kept), or give the folder of its IDX files: load({name!r}, directory), --data-dir DIR"
    )


@contextmanager
def _quiet(pooch: Any) -> Iterator[None]:
    """Without pooch's log: nnx shows a line of its own."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


class _MirrorError(Exception):
    """Why a mirror did not give the file."""


class _Download:
    """Downloads for `pooch.retrieve`, by way of a `.part` file beside the one to be.

    size      bytes of the file: no more are taken
    resumed   whether bytes from another run or mirror are in it
    """

    def __init__(self, size: int, *, resume: bool) -> None:
        self.size, self.resume, self.resumed = size, resume, False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        folder, file = os.path.dirname(output_file), url.rpartition("/")[2]
        part = os.path.join(folder, f"{file}.part")
        with open(part, "ab") as target:
            own = _locked(target) and _is_at(target, part)
            if own:
                self._into(target, url, file)
                if os.name == "posix":  # while it is locked; elsewhere no open file is renamed
                    os.replace(part, output_file)
                    return
        if own:
            os.replace(part, output_file)
            return
        with open(output_file, "wb") as target:  # another process is at it: not two into one file
            self._into(target, url, file)

    def _into(self, target: IO[bytes], url: str, file: str) -> None:
        if not self.resume or target.tell() > self.size:
            _empty(target)
        self.resumed = target.tell() > 0
        with self._bar(file) as bar:
            self._all(url, target, bar)

    def _all(self, url: str, target: IO[bytes], bar: Any) -> None:
        """Until the file has its size; _MirrorError when the mirror brings it no further."""
        for attempt in range(ATTEMPTS):
            before = target.tell()
            bar.n = before
            why = self._some(url, target, bar) if before < self.size else ""
            target.flush()
            if target.tell() == self.size:
                return
            if attempt == ATTEMPTS - 1 or target.tell() <= before:
                raise _MirrorError(why or f"{target.tell():,} of {self.size:,} bytes came")

    def _some(self, url: str, target: IO[bytes], bar: Any) -> str:
        """Append what comes; why no more came, "" if the server said that this is all."""
        from urllib.request import Request, urlopen

        request = Request(url, headers={"User-Agent": "nnx", "Accept-Encoding": "identity"})
        if target.tell():
            request.add_header("Range", f"bytes={target.tell()}-")
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                if not _goes_on(answer, target.tell()):
                    _empty(target)
                    bar.n = 0
                while chunk := answer.read1(CHUNK):
                    if target.tell() + len(chunk) > self.size:
                        _empty(target)
                        raise _MirrorError(f"it is longer than {self.size:,} bytes")
                    target.write(chunk)
                    bar.update(len(chunk))
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            return _why(error)
        except (ValueError, OverflowError) as error:  # urllib's for headers that make no sense
            return f"its answer makes no sense: {error}"
        return ""

    def _bar(self, file: str) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self.size, desc=file, unit="B", unit_scale=True, ascii=True, leave=False,
            disable=not sys.stderr.isatty(), file=sys.stderr,
        )  # fmt: skip


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _goes_on(answer: Any, at: int) -> bool:
    """Whether the server sends what comes after `at`: one that knows no ranges sends all."""
    if at == 0:
        return True
    return answer.status == 206 and str(answer.headers.get("Content-Range")).startswith(
        f"bytes {at}-"
    )


def _why(error: BaseException) -> str:
    """A line about it; urllib wraps what the socket said."""
    inner = getattr(error, "reason", None)
    text = reason(inner if isinstance(inner, BaseException) else error)
    return " ".join(text.split()) or type(error).__name__


def _locked(file: IO[bytes]) -> bool:
    """Whether this process has the file to itself until it closes it; True where none can tell."""
    try:
        import fcntl
    except ImportError:
        return True
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(file: IO[bytes], path: str) -> bool:
    """Whether it still is the file of that name: who had it locked may have renamed it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
