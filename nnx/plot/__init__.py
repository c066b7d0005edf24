"""Pictures of training, as matplotlib's Figures: the extra `plot`.

    nnx.plot.curves("run", path="curves.png")
    nnx.plot.mistakes(model, nnx.data.load("digits", split="test"))

Each function gives a Figure that no global state knows: nothing is shown, nothing needs closing, no
display is needed. A notebook shows it; `path` writes it too, as .png, .svg or .pdf, whole or not at
all. matplotlib is imported by the first call. Raises PackageError where it is missing, OptionError
for a path that ends otherwise, DataError for one that cannot be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, PackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..data import ArrayDataset
    from ..layers import Layer
    from ..train import Evaluation

__all__ = ["activations", "confusion", "curves", "mistakes", "weights"]

Path = str | os.PathLike[str]
SUFFIXES = (".png", ".svg", ".pdf")


def curves(history: Iterable[Mapping[str, Any]] | Path, path: Path | None = None) -> Figure:
    """Loss, each metric, and the learning rate by epoch; held-out values beside those of training.

    history   `trainer.history`, or the folder of a run: its metrics.jsonl is read

    Raises OptionError for a history without an epoch, DataError for a folder without a run.
    """
    check("curves", path)
    from .training import curves

    return _saved(curves(history), path)


def confusion(
    counts: Evaluation | Any, path: Path | None = None, *, classes: Sequence[str] | None = None
) -> Figure:
    """How often each class, a row, was taken for each other, a column.

    counts    an Evaluation, or (C, C) counts as `nnx.metrics.confusion_matrix` gives them
    classes   the C names; numbers by default

    A mistake is the darker the larger its part of the row is; the diagonal has what was right.
    Counts are written for at most 20 classes. Raises ShapeError for what is not (C, C), OptionError
    for an evaluation without a confusion matrix or for a wrong number of names.
    """
    check("confusion", path)
    from .training import confusion

    return _saved(confusion(counts, classes), path)


def mistakes(
    model: Layer,
    images: ArrayDataset | tuple[Any, Any],
    path: Path | None = None,
    *,
    count: int = 25,
    image_shape: tuple[int, ...] | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """The images that the model gets wrong, those first of which it is surest.

    images        an ArrayDataset, or x and class ids t (N,). x is (N, height, width),
                  (N, channels, height, width) of 1 or 3 channels, or flat
    count         how many to draw at most
    image_shape   (height, width) or (channels, height, width) of a flat image; a data set of images
                  knows its own, else a square
    classes       names of the classes; numbers by default

    Above each stand its class, what it was taken for, and the probability that the model gave to
    that: its output, through softmax unless the rows are probabilities already. Raises ShapeError
    for outputs that are not (N, C) or rows that are not such images, OptionError where a row is no
    square and the images' shape is not given.
    """
    check("mistakes", path)
    from .pixels import mistakes

    return _saved(mistakes(model, images, count, image_shape, classes), path)


def weights(
    model: Layer,
    path: Path | None = None,
    *,
    count: int = 64,
    image_shape: tuple[int, ...] | None = None,
) -> Figure:
    """The weights of the first layer, as an image for each of its units: red is for, blue against.

    Weights of three channels are in their colours, of which grey is 0.

    count         how many units to draw at most: those whose weights have the largest norm
    image_shape   (height, width) or (3, height, width) of an input of a linear layer; a square
                  where it is left out

    Raises OptionError for a model whose first weight is neither (in, out) nor (out, in, height,
    width), ShapeError where `in` is no such image.
    """
    check("weights", path)
    from .pixels import weights

    return _saved(weights(model, count, image_shape), path)


def activations(model: Layer, x: Any, path: Path | None = None, *, bins: int = 50) -> Figure:
    """A histogram of what each layer gives for a batch, in evaluation mode; the input's first.

    x   the input: (N, ...), an array, a Tensor or nested lists

    Above each stand the mean, the standard deviation and the part of zeros: units that are always
    0 learn nothing. Layers that hold others are left out, and those after the first 23. Raises what
    the model raises for x.
    """
    check("activations", path)
    from .layers import activations

    return _saved(activations(model, x, bins), path)


def check(what: str, path: Path | None = None) -> None:
    """PackageError without matplotlib; OptionError for a path that ends in none of SUFFIXES."""
    if find_spec("matplotlib") is None:
        raise PackageError(
            f"{what}: pictures need the package matplotlib, which is not installed: install nnx "
            f"with the extra plot, `pip install '.[plot]'`"
        )
    if path is not None:
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        if suffix not in SUFFIXES:
            raise OptionError(
                f"{what}: the path {os.fspath(path)!r} ends in {suffix!r}, expected one of "
                f"{', '.join(SUFFIXES)}"
            )


def _saved(figure: Any, path: Path | None) -> Figure:
    if path is not None:
        figure.save(path)
    return figure  # type: ignore[no-any-return]
