"""The command `nnx`: train, eval, predict, generate, info, bench."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import NnxError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code: 0, 2 after an error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a path may hold what the stream cannot encode
            reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", "resume:", UserWarning)
            warnings.showwarning = _warn
            code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except NnxError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"out of memory: {error or 'choose a smaller model or batch'}")
    except KeyboardInterrupt:
        print("nnx: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `nnx info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(message: str) -> int:
    print(f"nnx: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"nnx: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        from .. import bench

        return bench.main(argv[1:])
    from .options import parser

    made = parser()
    a = made.parse_args(argv)
    if a.command is None:
        made.print_help()
        return 0
    if a.command == "info":
        from ..info import lines

        print("\n".join(lines()))
        return 0
    if a.command == "train":
        from .train import train

        return train(a)
    from . import use

    return {"eval": use.evaluate, "predict": use.predict, "generate": use.generate}[a.command](a)
