"""The process of one implementation: `python -m nnx.bench.worker NAME THREADS`.

It reads a JSON command a line and answers each with a JSON line that repeats the command's id:

    {"id": 1, "do": "set up", "case": {...}, "warm_up_s": 0.1}
    {"id": 1, "results": [...]}
    {"id": 2, "do": "run", "seconds": 0.1}
    {"id": 2, "seconds": 4.1e-05, "wall": 0.1, "own": 0.1, "foreign": 0.01}
    {"id": 3, "do": "drop"}
    {"id": 3}

or with {"id": ..., "error": "why not"}. It ends when the commands do.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from .case import NONE_SUCH, Prepared
from .cases import decoded
from .columns import Implementation, implementation
from .timing import block, calls_per_chunk

CHECKED_RUNS = 3
SAMPLE = 1000  # values of a large result that are compared


def main(load: Callable[[str, int], Implementation] = implementation) -> None:
    """Serve the column and the number of threads that the command line names."""
    name, threads = sys.argv[1], int(sys.argv[2])
    answers = _own_output()
    confine(threads)

    try:
        made = load(name, threads)
        made.set_threads(threads)
        station = Station(made)
    except Exception as error:
        station = Station(None, _reason(error))
    station.serve(sys.stdin, answers)


def _own_output() -> IO[str]:
    """Standard output for the answers alone: what libraries print goes to standard error."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def confine(threads: int) -> None:
    """To as many cores as threads, where the system can: a library's helpers count as well."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[-threads:])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


class Station:
    """The case that is set up, if any, and what is done with it.

    broken   why there is no implementation
    """

    def __init__(self, made: Implementation | None, broken: str = "") -> None:
        self.made, self.broken = made, broken
        self.prepared: Prepared | None = None
        self.calls = 1

    def serve(self, commands: IO[str], answers: IO[str]) -> None:
        """Obey until the commands end; an error is answered, not raised."""
        for line in commands:
            command = json.loads(line)
            try:
                answer = self.obey(command)
            except Exception as error:
                answer = {"error": _reason(error)}
            answers.write(json.dumps({"id": command["id"], **answer}) + "\n")
            answers.flush()

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what the command says and return the answer."""
        if command["do"] == "drop":
            self.prepared = None
            gc.unfreeze()
            gc.collect()
            return {}
        if command["do"] == "set up":
            return self._set_up(command)
        if self.prepared is None:
            return {"error": "no case is set up"}
        return block(self.prepared, self.calls, command["seconds"])._asdict()

    def _set_up(self, command: dict[str, Any]) -> dict[str, Any]:
        if self.made is None:
            return {"error": self.broken}
        prepared = self.made.prepare(decoded(command["case"]))
        if prepared is None:
            return {"error": NONE_SUCH}
        found = check(prepared)
        self.calls = calls_per_chunk(prepared, command["warm_up_s"])
        self.prepared = prepared
        gc.collect()
        gc.freeze()  # or the collection before each block would look through a library's objects
        return {"results": found}


def check(prepared: Prepared) -> list[dict[str, Any]]:
    """Samples of what the first runs give."""
    runs = (prepared.values(prepared.run()) for _ in range(CHECKED_RUNS))
    return [sample(array) for results in runs for array in results]


def sample(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Shape and values; of a large array those at drawn positions, the same in each process."""
    flat = np.ravel(array)
    if flat.size > SAMPLE:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, SAMPLE)]
    return {"shape": list(array.shape), "values": flat.astype(float).tolist()}


if __name__ == "__main__":
    main()
