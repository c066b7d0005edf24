"""Batches of a data set on a backend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backend import Array, Backend, get_backend, load_backend
from ..errors import OptionError
from ..random import generator
from ..traffic import TO_DEVICE, crossed
from .dataset import ArrayDataset, HostArray

DTYPES = ("float16", "float32", "float64")


class DataLoader:
    """Iterate over `(x, t)`: one batch as arrays of a backend, moved there once each.

    dataset     an ArrayDataset of N rows
    batch_size  rows per batch; the last batch of an epoch may have fewer
    shuffle     take the rows of each epoch in a new random order
    seed        the orders depend on (seed, epoch) alone: not on the backend, and not on other
                random draws. None draws a seed from nnx's generator, so that `nnx.seed` fixes it
    drop_last   leave out a last batch that is not full
    dtype       "float16", "float32" or "float64", given to x and to t where that is floats;
                class ids stay int64
    backend     a name or a Backend; None takes the one that is current when the loader is made,
                and keeps it also in a thread that iterates

    A batch has memory of its own: changing it does not change the data set. `loader.epoch` is the
    number, from 0, of the epoch that the next iteration begins; set it to go on where a run
    stopped.

    Raises OptionError for a batch size below 1, a seed that is not an int of 0 or more, or another
    dtype, and what `nnx.use_backend` raises for a backend that cannot be used.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        dtype: str = "float32",
        backend: str | Backend | None = None,
    ) -> None:
        _check_int("batch_size", batch_size, 1)
        if dtype not in DTYPES:
            raise OptionError(f"DataLoader: dtype={dtype!r}, expected one of {', '.join(DTYPES)}")
        if seed is not None:
            _check_int("seed", seed, 0)
        elif shuffle:
            seed = int(generator().integers(2**63))
        if backend is None:
            backend = get_backend()
        self.backend: Backend = load_backend(backend) if isinstance(backend, str) else backend
        self.dataset: ArrayDataset = dataset
        self.batch_size: int = batch_size
        self.shuffle: bool = shuffle
        self.seed: int | None = seed
        self.drop_last: bool = drop_last
        self.dtype: str = dtype
        self.epoch: int = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of that epoch from number `start` on."""
        order = self._order(epoch)
        for i in range(start, len(self)):
            x, t = self.dataset[order[i * self.batch_size : (i + 1) * self.batch_size]]
            if not self.backend.on_host:
                crossed(TO_DEVICE, x.nbytes + t.nbytes, arrays=2)
            yield self._moved(x), self._moved(t)

    def _order(self, epoch: int) -> HostArray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        return np.random.Generator(np.random.PCG64(source)).permutation(n)

    def _moved(self, rows: HostArray) -> Array:
        return self.backend.asarray(rows, self.dtype if rows.dtype.kind == "f" else None)


def _check_int(option: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"DataLoader: {option}={value!r}, expected an int of {least} or more")
