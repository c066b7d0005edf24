"""The folder of a run, and which of its files is what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import reason, write_file
from ..io import save

if TYPE_CHECKING:
    from ..layers import Layer

CONFIG, METRICS = "config.json", "metrics.jsonl"
MODEL, BEST, CHECKPOINT = "model.safetensors", "best.safetensors", "checkpoint.safetensors"
FILES = (CONFIG, METRICS, MODEL, BEST, CHECKPOINT)
PICTURES = ("curves.png", "confusion.png", "mistakes.png", "weights.png", "activations.png")


class RunFolder:
    """Files of a run, each replaced whole, so that a kill leaves what was there before.

    config.json              what `nnx train` was asked for
    metrics.jsonl            a line of JSON per epoch
    model.safetensors        the parameters after the last complete epoch
    best.safetensors         those of the best epoch
    checkpoint.safetensors   all that is needed to go on; written last
    curves.png, ...          pictures, with `nnx train --plot`
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path, self._overwrite, self._begun = Path(path), overwrite, False
        self.checkpoint, self.best = self.path / CHECKPOINT, self.path / BEST

    def begin(self, config: Mapping[str, Any] | None = None, *, resumed: bool = False) -> None:
        """Make the folder, once, and write config.json.

        Raises DataError if that fails, or if it holds files, unless a run in it is resumed or to
        be overwritten: then an older run's files go.
        """
        if self._begun:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = [f.name for f in self.path.iterdir()]
            if there and not (resumed or self._overwrite):
                raise DataError(
                    f"the folder {os.fspath(self.path)!r} is not empty: give another one, resume "
                    f"the run in it (--resume, trainer.resume()), or replace it (--overwrite, "
                    f"overwrite=True)"
                )
            for name in there:
                torn = name.startswith(".nnx-") and name.endswith(".tmp")  # left by a kill
                if torn or (not resumed and name in FILES + PICTURES):
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot use the folder {os.fspath(self.path)!r}: {reason(error)}"
            ) from error
        if config is not None:
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            write_file(self.path / CONFIG, text.encode())
        self._begun = True

    def write(self, model: Layer, history: Iterable[Mapping[str, Any]]) -> None:
        """The model and the metrics after an epoch."""
        save(model, self.path / MODEL)
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        write_file(self.path / METRICS, lines.encode())
