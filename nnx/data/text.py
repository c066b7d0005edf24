"""Text for models of characters: characters as ids and back, and windows of a text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..backend import Array, Backend, get_backend, load_backend
from ..errors import DataError, DtypeError, LabelError, OptionError, ShapeError
from .dataset import HostArray, check_int


class Characters:
    """A vocabulary of characters, in the order of their ids.

        vocabulary = Characters.of("abba")        # 'a' is 0, 'b' is 1
        vocabulary.decode(vocabulary.encode("baba"))

    Raises DataError for no characters, or one that is there twice.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        try:
            self.characters: str = "".join(characters)
        except TypeError as error:
            raise DataError(f"Characters: expected characters, as a str: {error}") from error
        self._ids: dict[str, int] = {c: i for i, c in enumerate(self.characters)}
        if not self.characters or len(self._ids) < len(self.characters):
            raise DataError(
                f"Characters({self.characters[:40]!r}): expected at least one character, each once"
            )

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters of a text, sorted."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> HostArray:
        """ids (len(text),), int64; LabelError names a character that the vocabulary lacks."""
        if not isinstance(text, str):
            raise DataError(f"encode: the text is a {type(text).__qualname__}, expected a str")
        try:
            return np.fromiter((self._ids[c] for c in text), np.int64, len(text))
        except KeyError as error:
            place = text.index(error.args[0])
            raise LabelError(
                f"encode: character {error.args[0]!r} at place {place} of the text is none of the "
                f"vocabulary's {len(self)}: {self._brief()}"
            ) from None

    def decode(self, ids: Any) -> str:
        """The text of ids (n,), of any backend; LabelError names one outside the vocabulary."""
        found = np.asarray(to_numpy(ids) if hasattr(ids, "shape") else list(ids))
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise DtypeError(
                f"decode: ids have shape {found.shape} and dtype {found.dtype}, expected (n,) ints"
            )
        wrong = np.flatnonzero((found < 0) | (found >= len(self)))
        if wrong.size:
            raise LabelError(
                f"decode: id {found[wrong[0]]} at place {wrong[0]}, expected 0..{len(self) - 1}: "
                f"the vocabulary has {len(self)} characters"
            )
        return "".join(self.characters[i] for i in found)

    def _brief(self) -> str:
        shown = self.characters[:60]
        return repr(shown) + ("..." if len(self) > len(shown) else "")

    def __repr__(self) -> str:
        return f"Characters({self._brief()})"


def read_text(path: str | os.PathLike[str]) -> str:
    """A file's text, in UTF-8; DataError if it cannot be read, is of another encoding, or empty."""
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not text in UTF-8: {error}; convert it first") from error
    except (OSError, ValueError) as error:  # a name with a 0 in it is a ValueError
        raise DataError(
            f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not text:
        raise DataError(f"{name} is empty, expected text")
    return text


class Windows:
    """Windows of a text, one after another: x = ids[i : i + length], t = the ids that follow each.

    A data set for a DataLoader: row i begins at i * length. What is left at the end is left out.

    Raises ShapeError unless ids are (n,) with n > length, DtypeError unless they are ints.
    """

    def __init__(self, ids: Any, length: int) -> None:
        check_int("Windows", "length", length, 1)
        ids = to_numpy(ids) if hasattr(ids, "shape") else np.asarray(ids)
        if ids.dtype.kind not in "iu":
            raise DtypeError(
                f"Windows: the ids are {ids.dtype}, expected ints, as Characters.encode(text) gives"
            )
        if ids.ndim != 1 or len(ids) <= length:
            raise ShapeError(
                f"Windows: the ids have shape {ids.shape}, expected (n,) with n > {length}, the "
                f"window's length; give a longer text or a shorter context"
            )
        self.ids: HostArray = ids
        self.length = length

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.length

    def __getitem__(self, index: Any) -> tuple[HostArray, HostArray]:
        return self.at(np.arange(len(self))[index] * self.length)

    def at(self, starts: HostArray) -> tuple[HostArray, HostArray]:
        """The windows that begin at these places: x, t (len(starts), length)."""
        places = starts[..., None] + np.arange(self.length)
        return self.ids[places], self.ids[places + 1]


class RandomWindows:
    """Batches of windows that begin anywhere in a text, drawn anew for each: for `Trainer.fit`.

    dataset      Windows
    batch_size   windows of a batch
    steps        batches of an epoch
    seed         the places depend on (seed, epoch) alone
    backend      a name or a Backend; None takes the one that is current

    Raises OptionError for counts below 1 or a seed below 0.
    """

    def __init__(
        self, dataset: Windows, batch_size: int, steps: int, *, seed: int = 0,
        backend: str | Backend | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(dataset, Windows):
            raise OptionError(
                f"RandomWindows: dataset is a {type(dataset).__qualname__}, expected "
                f"nnx.data.Windows(ids, length)"
            )
        for name, value, least in (
            ("batch_size", batch_size, 1), ("steps", steps, 1), ("seed", seed, 0),
        ):  # fmt: skip
            check_int("RandomWindows", name, value, least)
        backend = get_backend() if backend is None else backend
        self.backend: Backend = load_backend(backend) if isinstance(backend, str) else backend
        self.dataset, self.batch_size, self.steps, self.seed = dataset, batch_size, steps, seed
        self.epoch: int = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of that epoch from number `start` on."""
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        places = np.random.Generator(np.random.PCG64(source)).integers(
            len(self.dataset.ids) - self.dataset.length, size=(self.steps, self.batch_size)
        )
        for i in range(start, self.steps):
            x, t = self.dataset.at(places[i])
            yield self.backend.asarray(x), self.backend.asarray(t)
