"""Batches of a data set on a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeAlias

import numpy as np

from ..backend import Array, Backend, get_backend, load_backend
from ..errors import OptionError, ShapeError
from ..random import generator
from ..traffic import TO_DEVICE, crossed
from .ahead import ahead
from .dataset import ArrayDataset, HostArray, check_int

Transform: TypeAlias = "Callable[[HostArray, np.random.Generator], HostArray]"
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
    transform   what changes the inputs of each batch before it is moved: one of
                `nnx.data.transforms`, or a function of (x, rng). x is a NumPy array of its own,
                (B, *image_shape) if the data set has one, else (B, ...) as in the data set; rng a
                generator that depends on (seed, epoch, number of the batch) alone. It returns as
                many rows
    prefetch    prepare and move the next batch on a thread while the consumer uses this one; the
                batches are the same

    A batch has memory of its own: changing it does not change the data set. `loader.epoch` is the
    number, from 0, of the epoch that the next iteration begins; set it to go on where a run
    stopped. What a transform raises on the thread reaches the consumer in its batch's place, and a
    consumer that stops early waits for the batch that is being made, no longer.

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
        transform: Transform | None = None,
        prefetch: bool = False,
    ) -> None:
        if isinstance(dataset, (tuple, list)) or hasattr(dataset, "shape"):
            raise OptionError(
                f"DataLoader: the data set is a {type(dataset).__name__}, expected inputs and "
                f"targets as nnx.data.ArrayDataset(x, t)"
            )
        check_int("DataLoader", "batch_size", batch_size, 1)
        if dtype not in DTYPES:
            raise OptionError(f"DataLoader: dtype={dtype!r}, expected one of {', '.join(DTYPES)}")
        if seed is not None:
            check_int("DataLoader", "seed", seed, 0)
        elif shuffle or transform is not None:
            seed = int(generator().integers(2**63))
        if transform is not None and not callable(transform):
            raise OptionError(
                f"DataLoader: transform={transform!r}, expected a function of (x, rng), such as "
                f"nnx.data.transforms.Shift(2)"
            )
        if not isinstance(prefetch, bool):
            raise OptionError(f"DataLoader: prefetch={prefetch!r}, expected True or False")
        if backend is None:
            backend = get_backend()
        self.backend: Backend = load_backend(backend) if isinstance(backend, str) else backend
        self.dataset: ArrayDataset = dataset
        self.batch_size: int = batch_size
        self.shuffle: bool = shuffle
        self.seed: int | None = seed
        self.drop_last: bool = drop_last
        self.dtype: str = dtype
        self.transform: Transform | None = transform
        self.prefetch: bool = prefetch
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
        moved = self.backend.in_order(self._moved) if self.prefetch else self._moved

        def make(i: int) -> tuple[Array, Array, int]:
            x, t = self.dataset[order[i * self.batch_size : (i + 1) * self.batch_size]]
            if self.transform is not None:
                x = self._transformed(self.transform, x, epoch, i)
            return moved(x), moved(t), x.nbytes + t.nbytes

        numbers = range(start, len(self))
        with closing(ahead(make, numbers) if self.prefetch else (make(i) for i in numbers)) as made:
            for x, t, nbytes in made:
                if not self.backend.on_host:
                    crossed(TO_DEVICE, nbytes, arrays=2)
                yield x, t

    def _transformed(self, transform: Transform, x: HostArray, epoch: int, i: int) -> HostArray:
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch, i))
        shape = self.dataset.image_shape
        images = x if shape is None else x.reshape(len(x), *shape)
        made = transform(images, np.random.Generator(np.random.PCG64(source)))
        if not isinstance(made, np.ndarray) or made.ndim == 0 or len(made) != len(x):
            got = f"shape {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
            raise ShapeError(
                f"DataLoader: the transform made {got} of shape {images.shape}, expected a NumPy "
                f"array of {len(x)} rows"
            )
        return made if shape is None else made.reshape(len(made), -1)

    def _order(self, epoch: int) -> HostArray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        return np.random.Generator(np.random.PCG64(source)).permutation(n)

    def _moved(self, rows: HostArray) -> Array:
        return self.backend.asarray(rows, self.dtype if rows.dtype.kind == "f" else None)
