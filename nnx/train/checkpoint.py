"""All that a training run is, as one file: a safetensors file with its numbers as JSON beside.

arrays   model.NAME: parameters; optimizer.I.NAME: the optimizer's state of parameter I
JSON     position, meter, seconds, history, best, rates, loader, stopped, optimizer, random,
         environment
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError, NnxError, StateError
from ..files import pack, read_file, unpack, write_file
from ..layers.state import check_state
from ..threads import get_num_threads

if TYPE_CHECKING:
    from .trainer import Trainer

FORMAT, VERSION = "nnx checkpoint", "1"


class Checkpoint(NamedTuple):
    """Arrays by name, and the rest as what JSON can hold."""

    arrays: dict[str, np.ndarray[Any, Any]]
    about: dict[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Replace the file, whole or not at all; DataError if it cannot be written."""
        text = json.dumps(self.about, separators=(",", ":"))
        about = {"format": FORMAT, "version": VERSION, "state": text}
        about["crc32"] = _crc32(self.arrays, text)
        write_file(path, pack("checkpoint", self.arrays, about))


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in that file; DataError for a missing, damaged or foreign one."""
    given = os.fspath(path)
    arrays, about = unpack("checkpoint", read_file("checkpoint", given), given)
    if about.get("format") != FORMAT:
        raise DataError(
            f"checkpoint: {given!r} holds {about.get('format') or 'arrays'!r} and no checkpoint; "
            f"expected the checkpoint.safetensors of a run"
        )
    if about.get("version") != VERSION:
        raise DataError(
            f"checkpoint: {given!r} has version {about.get('version')!r} of nnx's format, this nnx "
            f"reads {VERSION!r}: go on with the nnx that wrote it, or upgrade"
        )
    try:
        if about["crc32"] != _crc32(arrays, about["state"]):
            raise ValueError("its checksum is another one")
        state = json.loads(about["state"])
        if not isinstance(state, dict):
            raise TypeError(f"its state is a {type(state).__name__}")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"checkpoint: {given!r} is damaged: {error}") from error
    return Checkpoint(arrays, state)


def _crc32(arrays: Mapping[str, np.ndarray[Any, Any]], text: str) -> str:
    found = zlib.crc32(text.encode())
    for name in sorted(arrays):
        x = arrays[name]
        found = zlib.crc32(f"{name} {x.dtype.name} {x.shape}".encode(), found)
        found = zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data, found)
    return f"{found:08x}"


def environment(trainer: Trainer) -> dict[str, Any]:
    """What results depend on to the last bit, beside the program and its data."""
    from .. import __version__

    backend = trainer.backend
    return {
        "nnx": __version__,
        "backend": backend.name,
        "threads": str(get_num_threads()),
        **backend.describe(),
    }


def gather(trainer: Trainer) -> Checkpoint:
    """All of the trainer's state, copied to the host."""
    arrays = {f"model.{name}": x for name, x in trainer.model.state_dict().items()}
    saved = trainer.optimizer.state_dict()
    steps = {}
    for i, entry in saved["state"].items():
        steps[str(i)] = entry.pop("step")
        arrays.update({f"optimizer.{i}.{name}": x for name, x in entry.items()})
    about = {
        "position": {"epoch": trainer.epoch, "batch": trainer.batch, "step": trainer.step},
        "meter": trainer.meter.state(),
        "seconds": trainer.seconds,
        "history": [dict(entry) for entry in trainer.history],
        "best": trainer.best,
        "rates": trainer.rates,
        "stopped": trainer.stopped,
        "loader": trainer.loader,
        "optimizer": {
            "optimizer": saved["optimizer"],
            "param_groups": saved["param_groups"],
            "steps": steps,
        },
        "random": trainer.generator.bit_generator.state,
        "environment": environment(trainer),
    }
    return Checkpoint(arrays, about)


def restore(trainer: Trainer, checkpoint: Checkpoint, where: str) -> None:
    """Make the trainer what it was; if that fails it stays as it is.

    Raises StateError if model or optimizer are others, DataError if the checkpoint is damaged.
    """
    before = gather(trainer)
    try:
        _restore(trainer, checkpoint)
    except MemoryError:
        raise  # of a device's, for the optimizer's state: before anything was changed
    except NnxError as error:
        _restore(trainer, before)
        raise StateError(
            f"the checkpoint {where!r} does not fit: {error}\nMake model, optimizer and trainer as "
            f"they were in the run that wrote it"
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        _restore(trainer, before)
        raise DataError(
            f"checkpoint: {where!r} is damaged: {type(error).__name__}: {error}"
        ) from error


def _restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    arrays, about = checkpoint
    model = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
    position, saved = about["position"], about["optimizer"]
    entries: dict[int, dict[str, Any]] = {int(i): {"step": n} for i, n in saved["steps"].items()}
    for key, x in arrays.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            i, _, name = rest.partition(".")
            entries[int(i)][name] = x
    groups = [{k: _tuple(v) for k, v in group.items()} for group in saved["param_groups"]]
    for group in groups:
        group["params"] = list(group["params"])
    check_state(trainer.model, model)
    trainer.optimizer.load_state_dict(  # before the model: it may need memory of a device
        {"optimizer": saved["optimizer"], "param_groups": groups, "state": entries}
    )
    trainer.model.load_state_dict(model)
    trainer.generator.bit_generator.state = about["random"]
    trainer.meter.restore(about["meter"])
    trainer.epoch, trainer.batch, trainer.step = (
        _count(position[name]) for name in ("epoch", "batch", "step")
    )
    trainer.seconds = float(about["seconds"])
    trainer.history[:] = [dict(entry) for entry in about["history"]]
    trainer.best = None if about["best"] is None else _best(about["best"])
    trainer.rates = [float(rate) for rate in about["rates"]]
    trainer.loader = None if about["loader"] is None else dict(about["loader"])
    trainer.stopped = None if about["stopped"] is None else str(about["stopped"])


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _best(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"epoch": _count(value["epoch"]), "value": float(value["value"])}


def _tuple(value: Any) -> Any:
    """JSON's lists are an optimizer's tuples."""
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def warn_of_changes(checkpoint: Checkpoint, now: Mapping[str, Any]) -> None:
    """Say what is not as it was when the checkpoint was written: the last bits may differ."""
    then = checkpoint.about.get("environment")
    if not isinstance(then, dict):
        return
    changed = [
        f"{name} was {then.get(name)} and is {now.get(name)}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if changed:
        warnings.warn(
            f"resume: {'; '.join(changed)}. The run goes on, and may end in other weights, in "
            f"their last bits, than if it had not been interrupted",
            stacklevel=3,
        )
