"""Checks of attributes that several ops share."""

from __future__ import annotations

from typing import Any

from ..errors import OptionError


def one_of(op: str, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        choices = " or ".join(map(repr, allowed))
        raise OptionError(f"{op}: {name}={value!r}, expected {choices}")
