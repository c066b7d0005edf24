"""The folder that `nnx train --out` writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .io import reason, save, write_file

if TYPE_CHECKING:
    from .layers import Layer
    from .train import Epoch

FILES = CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.safetensors"


class RunFolder:
    """config.json, metrics.jsonl (a line per epoch) and model.safetensors, in UTF-8.

    Each file is replaced whole, so an interrupted run leaves the last complete epoch's.
    `epoch` is that epoch, 0 before the first. Raises DataError if the folder cannot be made or
    written, or holds files and `overwrite` is False; with it, an older run's files are removed.
    """

    def __init__(self, path: str, config: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path, self.epoch, self._lines = Path(path), 0, ""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not overwrite and any(self.path.iterdir()):
                raise DataError(
                    f"the folder {path!r} is not empty; give another one with --out, or "
                    f"--overwrite to replace the run in it"
                )
            for name in (METRICS, MODEL):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot use the folder {path!r}: {reason(error)}") from error
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        write_file(self.path / CONFIG, text.encode())

    def write(self, model: Layer, epoch: Epoch) -> None:
        """The model and the metrics after this epoch."""
        metrics = {k: v for k, v in asdict(epoch).items() if k != "evaluation"}
        self._lines += json.dumps(metrics) + "\n"
        save(model, self.path / MODEL)
        write_file(self.path / METRICS, self._lines.encode())
        self.epoch = epoch.epoch
