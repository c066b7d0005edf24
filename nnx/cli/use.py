"""`nnx eval`, `nnx predict` and `nnx generate`: what a trained model is for."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, io, train
from ..arrays import to_numpy
from ..backend import use_backend
from ..data.dataset import HostArray
from ..data.files import FILES
from ..errors import DataError, OptionError, ShapeError
from ..files import reason, write_file
from ..layers import Layer
from ..ops import softmax
from ..report import summary
from ..train.folder import BEST, CONFIG, MODEL
from . import chars, config
from .images import check_classes, datasets


def evaluate(a: argparse.Namespace) -> int:
    """Print what `nnx train` prints at its end."""
    run = config.arguments(a.run)
    if run.task == "chars":
        return _evaluate_text(a, run)
    if a.data is not None or a.data_dir is not None:
        run.data, run.data_dir = a.data or run.data, a.data_dir
    with use_backend(a.backend):
        model, form = _model(a, run)
        held_out = _held_out(a, run, form)
        if (held_out.x.shape[1], held_out.classes) != (form["features"], form["classes"]):
            raise DataError(
                f"{held_out.name} has {held_out.x.shape[1]} numbers per image and "
                f"{held_out.classes} classes; the model of {a.run!r} takes {form['features']} and "
                f"tells {form['classes']} apart"
            )
        result = train.evaluate(model, data.DataLoader(held_out, 1000))
    print(f"{held_out.name}: {len(held_out):,} images")
    print("\n".join(summary(result)))
    return 0


def _held_out(
    a: argparse.Namespace, run: argparse.Namespace, form: dict[str, Any]
) -> data.ArrayDataset:
    """The run's held-out part; all of a file that is not the run's."""
    if a.data is None or not a.data.lower().endswith(FILES):
        return datasets(run)[1]
    classes = form.get("class_names") or form["classes"]
    whole = data.load(a.data, a.data_dir, split="all", classes=classes)
    check_classes(whole, a.data)
    return whole


def _evaluate_text(a: argparse.Namespace, run: argparse.Namespace) -> int:
    if a.data_dir is not None:
        raise OptionError("--data-dir is for images; a text is given as --data FILE")
    with use_backend(a.backend):
        model, vocabulary = chars.trained(run, config.read(a.run).get("data"), a.run, a.best)
        ids = vocabulary.encode(data.read_text(a.data or run.data))
        if a.data is None:
            ids = ids[len(ids) - len(ids) // chars.HELD_OUT :]
        windows = data.Windows(ids, model.context)
        result = train.evaluate(model, data.DataLoader(windows, 32))  # type: ignore[arg-type]
    print(f"{os.path.basename(a.data or run.data)}: {len(ids):,} characters")
    print("\n".join(chars.summary(result)))
    return 0


def generate(a: argparse.Namespace) -> int:
    """Print the prompt and what the model goes on with."""
    run = config.arguments(a.run)
    if run.task != "chars":
        raise OptionError(f"the run in {a.run!r} is of images; classify some with `nnx predict`")
    if not a.prompt:
        raise OptionError("--prompt '' is empty, expected at least one character")
    with use_backend(a.backend):
        model, vocabulary = chars.trained(run, config.read(a.run).get("data"), a.run, a.best)
        rng = np.random.default_rng(a.seed)
        text = chars.written(
            model, vocabulary, a.prompt, a.generate, model.context, a.temperature, rng
        )
    print((a.prompt + text).lstrip("\n"))
    return 0


def predict(a: argparse.Namespace) -> int:
    """Write classes and probabilities, one row per image."""
    if a.out is not None and Path(a.out).suffix not in (".csv", ".npy"):
        raise OptionError(f"--out {a.out}: expected a file's name that ends in .csv or .npy")
    run = config.arguments(a.run)
    if run.task == "chars":
        raise OptionError(f"the run in {a.run!r} is of text; let it go on with `nnx generate`")
    with use_backend(a.backend):
        model, form = _model(a, run)
        images = _images(a.images, form)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            probabilities = to_numpy(softmax(train.predict(model, images)))
        _check_finite(a.images, probabilities, images)
    if a.out is None:
        sys.stdout.write(_csv(probabilities))
        return 0
    if a.out.endswith(".npy"):
        write_file(a.out, _npy(probabilities))
    else:
        write_file(a.out, _csv(probabilities).encode())
    print(f"{len(probabilities):,} images: classes and probabilities in {a.out}")
    return 0


def _model(a: argparse.Namespace, run: argparse.Namespace) -> tuple[Layer, dict[str, Any]]:
    """The run's model, and the form of what it takes: features, classes, image_shape, white."""
    form = config.read(a.run).get("data")
    counts = [form.get(k) for k in ("features", "classes")] if isinstance(form, dict) else []
    if not isinstance(form, dict) or not all(type(n) is int and 0 < n < 2**31 for n in counts):
        raise DataError(
            f"{os.path.join(a.run, CONFIG)!r} does not say what the model takes; was the run made "
            f"by `nnx train`?"
        )
    model = train.build_model(run.model, form["features"], form["classes"])
    io.load(model, os.path.join(a.run, BEST if a.best else MODEL))
    return model, form


def _images(path: str, form: dict[str, Any]) -> HostArray:
    """The file's rows as the model takes them: flat, and as they were scaled in training."""
    images, features = _read(path), form["features"]
    if images.ndim < 2 or images[0:1].size != features or not len(images):
        raise ShapeError(
            f"{path!r} has shape {images.shape}; expected at least one image of {features} numbers "
            f"each: (N, {features}), or (N, height, width)"
        )
    if images.dtype.kind not in "iufb":
        raise DataError(f"{path!r} holds {images.dtype}, expected numbers")
    rows = images.reshape(len(images), features)
    if rows.dtype.kind == "f":
        _check_finite(path, rows, rows)
    if rows.dtype == np.uint8 and form.get("white"):
        return rows.astype(np.float32) / np.float32(form["white"])
    return rows if rows.dtype.kind == "f" else rows.astype(np.float32)


def _check_finite(path: str, found: HostArray, images: HostArray) -> None:
    """Refuse images in whose numbers, or in what came of them, there is NaN or infinity."""
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(wrong):
        row = images[wrong[0]]
        what = "holds" if found is images else "gives no probabilities: it holds"
        raise DataError(
            f"{path!r}: image {wrong[0]} {what} numbers from {row.min()} to {row.max()}, expected "
            f"finite ones, scaled as in training"
        )


def _read(path: str) -> HostArray:
    """An array from a .npy or IDX file."""
    if not path.endswith(".npy"):
        return data.read_idx(path)
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except Exception as error:  # NumPy passes on what its parser of the header raises
        raise DataError(f"cannot read {path!r}: {reason(error)}") from error


def _csv(probabilities: HostArray) -> str:
    """A header, then a line per image: its class, and each class's probability."""
    names = ",".join(f"p{i}" for i in range(probabilities.shape[1]))
    lines = [f"class,{names}"]
    for best, row in zip(probabilities.argmax(axis=1), probabilities, strict=True):
        lines.append(f"{best}," + ",".join(f"{p:.6g}" for p in row))
    return "\n".join(lines) + "\n"


def _npy(array: HostArray) -> bytes:
    from io import BytesIO

    out = BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
