"""The workers' processes, seen from the one that asks: started, asked with a time limit, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import IO, Any

from ..errors import NnxError
from .columns import THP, Column

ROOT = Path(__file__).resolve().parents[2]  # what a worker imports nnx from: this very nnx
POOLS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "NPROC",
)  # fmt: skip


class WorkerError(NnxError):
    """A worker gave no answer, or answered that it cannot; the message is the reason."""


def environment(threads: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Of a worker: this process's, with every library limited to so many threads."""
    made = {k: v for k, v in os.environ.items() if k != THP}
    made["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), made.get("PYTHONPATH"))))
    made |= dict.fromkeys(POOLS, str(threads))  # JAX reads NPROC
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        made["XLA_FLAGS"] = f"{made.get('XLA_FLAGS', '')} {flags}".strip()
    return made | dict(extra)


class Worker:
    """One implementation's process; started anew when it is asked after it was lost."""

    def __init__(self, column: Column, threads: int) -> None:
        self.column, self.threads = column, threads
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._errors: IO[bytes] | None = None
        self._asked = 0

    def start(self) -> None:
        """Start the process if there is none: it imports its library meanwhile."""
        if self._process is not None:
            return
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._lines = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, *self.column.program, self.column.name, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            errors="replace",
            env=environment(self.threads, self.column.environment),
            start_new_session=True,  # Ctrl-C is for the process that asks; it ends the workers
        )
        self._reader = threading.Thread(
            target=_forward, args=(self._process.stdout, self._lines), daemon=True
        )
        self._reader.start()

    def ask(self, timeout_s: float, **command: Any) -> dict[str, Any]:
        """The answer to a command.

        Raises WorkerError if it is an error, and if none comes in time or ever: then the process
        is ended.
        """
        self.start()
        assert self._process is not None and self._process.stdin is not None
        self._asked += 1
        try:
            self._process.stdin.write(json.dumps({"id": self._asked, **command}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None
        answer = self._answer(monotonic() + timeout_s)
        if answer is None:
            self.close()
            raise WorkerError(f"no answer within {timeout_s:g} s")
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _answer(self, deadline: float) -> dict[str, Any] | None:
        """The line with the command's id; whatever else is printed there is skipped."""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except Empty:
                return None
            if line is None:
                raise self._lost()
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("id") == self._asked:
                return found

    def _lost(self) -> WorkerError:
        """End what is left of the process, and say what it said last."""
        assert self._process is not None and self._errors is not None
        try:
            code: object = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = "unknown"  # it closed its output and lives
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.close()
        return WorkerError(f"its process ended (exit code {code}){': ' if said else ''}{said}")

    def close(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        if hasattr(os, "killpg"):
            with suppress(OSError):  # nobody is left
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        self._reader.join()
        for stream in (process.stdin, process.stdout, self._errors):
            with suppress(OSError):  # a command that was never read
                stream.close()  # type: ignore[union-attr]


def _forward(output: IO[str], lines: SimpleQueue[str | None]) -> None:
    for line in output:
        lines.put(line)
    lines.put(None)
