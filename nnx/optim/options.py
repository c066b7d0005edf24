"""What users may give: parameters, groups, options and their ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import OptionError
from ..tensor import Parameter, Tensor

Check = Callable[[float], bool]

NOT_NEGATIVE: tuple[Check, str] = (lambda v: 0 <= v < math.inf, "a finite number >= 0")
FRACTION: tuple[Check, str] = (lambda v: 0 <= v < 1, "a number with 0 <= value < 1")
FINITE: tuple[Check, str] = (math.isfinite, "a finite number")
RANGES = {
    "lr": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": NOT_NEGATIVE,
    "dampening": FINITE,
    "lr_decay": NOT_NEGATIVE,
    "initial_accumulator_value": NOT_NEGATIVE,
    "eps": NOT_NEGATIVE,
    "alpha": FRACTION,
}


def checked(what: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The options as Python numbers; raises OptionError naming the first that is wrong."""
    return {name: _option(what, name, value, known) for name, value in given.items()}


def _option(what: str, name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise OptionError(f"{what}: unknown option {name!r}; it takes {', '.join(known)}")
    if isinstance(known[name], bool):
        if not isinstance(value, (bool, np.bool_)):
            raise OptionError(f"{what}: {name}={value!r}, expected True or False")
        return bool(value)
    if name == "betas":
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise OptionError(f"{what}: betas={value!r}, expected two numbers, (0.9, 0.999)")
        return tuple(number(what, f"betas[{i}]", b, FRACTION) for i, b in enumerate(value))
    return number(what, name, value, RANGES.get(name, FINITE))  # a user's own: see `check`


def number(what: str, name: str, value: Any, allowed: tuple[Check, str]) -> int | float:
    """`value` as a Python number if it is one and is allowed."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or not allowed[0](plain):
        raise OptionError(f"{what}: {name}={value!r}, expected {allowed[1]}")
    return plain


def groups(what: str, params: Any) -> list[Mapping[str, Any]]:
    """`params` as a list of groups."""
    if isinstance(params, Mapping) and "params" in params:
        raise OptionError(f"{what}: one group was given by itself; write [{{'params': ...}}]")
    listed = _listed(what, params)
    if not any(isinstance(p, Mapping) for p in listed):
        return [{"params": listed}]
    for i, group in enumerate(listed):
        if not isinstance(group, Mapping) or "params" not in group:
            raise OptionError(
                f"{what}: params[{i}] is {_kind(group)}; where one is a dict, all must be, each "
                f"with 'params': [{{'params': [...], 'lr': 0.1}}, {{'params': [...]}}]"
            )
    return listed


def parameters(what: str, params: Any) -> list[Parameter]:
    """`params` as a list of Parameters, at least one."""
    listed = [params] if isinstance(params, Parameter) else _listed(what, params)
    if not listed:
        raise OptionError(
            f"{what}: no parameters were given; an iterator such as net.named_parameters() is "
            f"empty after its first use. Write net.parameters()"
        )
    for i, p in enumerate(listed):
        if not isinstance(p, Parameter):
            raise OptionError(f"{what}: params[{i}] is {_kind(p)}, expected a Parameter{_fix(p)}")
    return listed


def _listed(what: str, params: Any) -> list[Any]:
    if callable(getattr(params, "parameters", None)):
        kind = type(params).__name__
        raise OptionError(f"{what}: got the layer {kind} itself; write net.parameters()")
    if callable(params):
        raise OptionError(f"{what}: got a function; call it: net.parameters()")
    if isinstance(params, Tensor):
        raise OptionError(f"{what}: got one {type(params).__name__}; write a list: [parameter]")
    if isinstance(params, (Mapping, str)) or not isinstance(params, Iterable):
        raise OptionError(
            f"{what}: got {_kind(params)}, expected a list of Parameters (net.parameters()) or of "
            f"groups [{{'params': [...], 'lr': 0.1}}]"
        )
    return list(params)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _fix(value: Any) -> str:
    if isinstance(value, tuple):
        return "; write net.parameters(), not net.named_parameters()"
    if callable(getattr(value, "parameters", None)):
        return "; write *layer.parameters()"
    return "; make it one with nnx.Parameter(data)"
