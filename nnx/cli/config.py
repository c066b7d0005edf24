"""config.json: what a run was asked for, and what it ran on."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ..errors import DataError
from ..files import read_file
from ..train.folder import CONFIG
from .options import filled, parser

NOT_KEPT = ("command", "overwrite", "resume")
MAY_CHANGE = ("epochs", "backend", "threads", "eager", "save_every", "patience", "plot")


def make(a: argparse.Namespace, form: dict[str, Any]) -> dict[str, Any]:
    """All arguments, the data's form, and what it runs on."""
    import platform
    from datetime import UTC, datetime

    import numpy as np

    from .. import __version__
    from ..backend import get_backend

    backend = get_backend()
    return {
        "arguments": {k: v for k, v in vars(a).items() if k not in NOT_KEPT},
        "data": form,
        "versions": {
            "nnx": __version__, "python": platform.python_version(), "numpy": np.__version__,
        },
        "backend": {"name": backend.name, **backend.describe()},
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def read(folder: str) -> dict[str, Any]:
    """The configuration of the run in that folder; DataError if there is none that nnx wrote."""
    path = os.path.join(folder, CONFIG)
    if not os.path.exists(path):
        raise DataError(
            f"there is no run in {folder!r}: it has no {CONFIG}; start one with "
            f"`nnx train --out {folder}`"
        )
    try:
        config = json.loads(read_file("config", path).decode("utf-8"))
        arguments = config["arguments"]
        if not isinstance(arguments, dict):
            raise TypeError(f"arguments are a {type(arguments).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path!r} is not what nnx writes: {type(error).__name__}: {error}"
        ) from error
    return dict(config)


def check_data(folder: str, form: dict[str, Any]) -> None:
    """DataError if a run's data are others by now: what it learnt of the old ones would not fit."""
    then = read(folder).get("data")
    now = json.loads(json.dumps(form))
    changed = [
        f"{name} was {str(then[name])[:60]} and is {str(now[name])[:60]}"
        for name in now
        if isinstance(then, dict) and name in then and then[name] != now[name]
    ]
    if changed:
        raise DataError(
            f"the data of the run in {folder!r} are no longer those that it began with: "
            f"{'; '.join(changed)}. Bring them back, or begin another run with --out"
        )


def arguments(folder: str) -> argparse.Namespace:
    """The arguments of the run in that folder, checked as on a command line."""
    argv = ["train"]
    for name, value in read(folder)["arguments"].items():
        option = f"--{str(name).replace('_', '-')}"
        if value is True:
            argv.append(option)
        elif value is not None and value is not False:
            argv.append(f"{option}={value}")
    try:
        return filled(parser().parse_args(argv))
    except SystemExit as error:
        raise DataError(
            f"{os.path.join(folder, CONFIG)!r} has arguments that this nnx does not take (see "
            f"above)"
        ) from error


def resumed(a: argparse.Namespace) -> argparse.Namespace:
    """The options of the run that is resumed, with those given anew that may change."""
    folder = a.resume
    usual = parser().parse_args(["train"])
    given = {k for k, v in vars(a).items() if v != getattr(usual, k)} - {"resume"}
    wrong = sorted(given - set(MAY_CHANGE))
    if wrong:
        raise DataError(
            f"--resume goes on with the run's own options: leave out "
            f"{', '.join('--' + w.replace('_', '-') for w in wrong)} (what may change: "
            f"{', '.join('--' + m.replace('_', '-') for m in MAY_CHANGE)})"
        )
    made = arguments(folder)
    for name in given:
        setattr(made, name, getattr(a, name))
    made.out, made.resume = folder, folder
    return made
