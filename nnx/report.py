"""What `nnx train` shows: a bar while an epoch runs, a line after it, a summary at the end.

All of it is ASCII: it must survive any terminal's encoding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .train import Evaluation, Trainer

INTERVAL = 0.25  # seconds between two readings of the meter, each of which waits for the device


class Bar:
    """A progress bar on stderr for each epoch: loss, accuracy, images/s.

    count, what   of the rows of an epoch: 1438, "images"
    """

    def __init__(self, count: int, epochs: int, what: str = "images") -> None:
        self.count, self.what, self.epochs = count, what, epochs
        self._epoch, self._shown = 0, 0.0
        self._bar: Any = None

    def __call__(self, trainer: Trainer) -> None:
        """Show the epoch that is running, if it is time to."""
        if trainer.epoch + 1 != self._epoch:
            self._open(trainer.epoch + 1)
        now, rows = time.monotonic(), trainer.meter.rows
        if now - self._shown >= INTERVAL or rows == self.count:
            self._shown = now
            means = trainer.meter.means()
            state = f"loss {means['loss']:.4f}"
            if "accuracy" in means:
                state += f", accuracy {100 * means['accuracy']:.2f} %"
            self._bar.set_postfix_str(state, refresh=False)
            self._bar.update(rows - self._bar.n)

    def _open(self, epoch: int) -> None:
        from tqdm import tqdm

        self.close()
        self._epoch = epoch
        self._bar = tqdm(
            total=self.count, desc=f"epoch {epoch}/{self.epochs}", unit=f" {self.what}",
            ascii=True, leave=False, dynamic_ncols=True, mininterval=0, miniters=1, file=sys.stderr,
        )  # fmt: skip

    def close(self) -> None:
        """Take the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(e: Mapping[str, Any], epochs: int) -> str:
    """One line of figures for an epoch of `Trainer.history`."""
    return (
        f"epoch {e['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train: loss {e['train_loss']:.4f}, accuracy {100 * e['train_accuracy']:6.2f} %"
        f"  held-out: loss {e['test_loss']:.4f}, accuracy {100 * e['test_accuracy']:6.2f} %"
        f"  {e['rows_per_second']:,.0f} images/s"
    )


def summary(result: Evaluation) -> list[str]:
    """Held-out accuracy, and the pairs of classes that are taken for each other."""
    count = int(result.counts.sum())
    lines = [
        f"held-out accuracy {100 * result.accuracy:.2f} % "
        f"(error {100 * result.errors / count:.2f} %: {result.errors:,} of {count:,} images), "
        f"loss {result.loss:.4f}"
    ]
    pairs = result.most_confused(5)
    if pairs:
        lines.append("most confused (class, taken for, times of all images of the class):")
        totals = result.counts.sum(axis=1)
        lines += [f"  {a} -> {b}  {n:,} of {totals[a]:,}" for a, b, n in pairs]
    return lines
