"""An optimizer's state on the host and back, and gradients that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import to_numpy
from ..backend import Array, Backend, backend_of, load_backend
from ..errors import DtypeError, MixedBackendsError, NnxError, OptionError, ShapeError, StateError
from ..tensor import Parameter
from . import options

if TYPE_CHECKING:
    from .optimizer import Optimizer


class State:
    """What an optimizer remembers of one parameter.

    names, arrays   the state arrays, on the parameter's backend, of its shape and dtype
    home            the parameter's array at the last step; another one means that it has moved
    step            how many updates it has had
    """

    __slots__ = ("arrays", "backend", "home", "names", "step")

    def __init__(
        self, names: tuple[str, ...], arrays: tuple[Array, ...], home: Array, backend: Backend,
        step: int = 0,
    ) -> None:  # fmt: skip
        self.names, self.arrays, self.home = names, arrays, home
        self.backend, self.step = backend, step

    def __reduce__(self) -> Any:
        """Pickled as NumPy values, so that a GPU's state loads where there is none."""
        return _on_host, (self.names, tuple(map(to_numpy, self.arrays)), self.step)


def _on_host(names: tuple[str, ...], arrays: tuple[Array, ...], step: int) -> State:
    return State(names, arrays, None, load_backend("numpy"), step)


def dump(optimizer: Optimizer) -> dict[str, Any]:
    """See Optimizer.state_dict."""
    groups, saved, i = [], {}, 0
    for group in optimizer.param_groups:
        count = len(group["params"])
        plain = {name: _plain(group[name]) for name in optimizer.defaults}
        groups.append({"params": list(range(i, i + count)), **plain})
        for p in group["params"]:
            state = optimizer._states.get(p)
            if state is not None and state.step:
                copies = [np.array(to_numpy(a)) for a in state.arrays]
                saved[i] = {"step": state.step, **dict(zip(state.names, copies, strict=True))}
            i += 1
    return {"optimizer": optimizer._name, "param_groups": groups, "state": saved}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def restore(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """See Optimizer.load_state_dict."""
    wrong = list(_misfits_of_form(optimizer, saved))
    if wrong:
        raise _mismatch(optimizer, wrong)
    groups = [_options(optimizer, i, g, wrong) for i, g in enumerate(saved["param_groups"])]
    names = [None if g is None else optimizer.plan(g).names for g in groups]
    home = [(p, n) for g, n in zip(optimizer.param_groups, names, strict=True) for p in g["params"]]
    for i, entry in saved["state"].items():
        if type(i) is int and 0 <= i < len(home):
            wrong += _misfits_of_entry(i, *home[i], entry)
        else:
            wrong.append(f"it has state for parameter {i!r}, there are {len(home)}")
    if wrong:
        raise _mismatch(optimizer, wrong)
    made = [(*home[i], entry, optimizer.places(home[i][0], home[i][1] or ()))
            for i, entry in saved["state"].items()]  # fmt: skip
    optimizer.forget()  # from here on a device's memory cannot run out
    for p, names, entry, places in made:
        arrays = [np.array(entry[n], order="C") for n in names or ()]
        optimizer.remember(p, names or (), arrays, entry["step"], places)
    for group, new in zip(optimizer.param_groups, groups, strict=True):
        group.update(new or {})


def _misfits_of_form(optimizer: Optimizer, saved: Mapping[str, Any]) -> Iterator[str]:
    """What makes it useless to look further."""
    kinds = {"optimizer": str, "param_groups": list, "state": Mapping}
    if (
        not isinstance(saved, Mapping)
        or not all(isinstance(saved.get(k), kind) for k, kind in kinds.items())
        or not all(isinstance(x, Mapping) for x in saved["param_groups"])
    ):
        yield "it is not what state_dict() gives: a dict of optimizer, param_groups and state"
        return
    if saved["optimizer"] != optimizer._name:
        yield f"it is the state of {saved['optimizer']}"
    count, expected = len(saved["param_groups"]), len(optimizer.param_groups)
    if count != expected:
        yield f"it has {count} parameter groups, the optimizer {expected}"


def _options(
    optimizer: Optimizer, i: int, new: Mapping[str, Any], wrong: list[str]
) -> dict[str, Any] | None:
    """Group i's options; None where they are wrong, with the reason added to `wrong`."""
    start = optimizer._index(i, 0)
    expected = list(range(start, start + len(optimizer.param_groups[i]["params"])))
    if new.get("params") != expected:
        wrong.append(f"group {i} has the parameters {new.get('params')}, expected {expected}")
    given = {k: v for k, v in new.items() if k != "params"}
    missing = [k for k in optimizer.defaults if k not in given]
    if missing:
        wrong.append(f"group {i} lacks {', '.join(missing)}")
        return None
    try:
        made = options.checked(f"group {i}", given, optimizer.defaults)
        optimizer.check(made)
    except OptionError as error:
        wrong.append(str(error))
        return None
    return made


def _misfits_of_entry(
    i: int, p: Parameter, names: tuple[str, ...] | None, entry: Any
) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"parameter {i}: its state is a {type(entry).__name__}, expected a dict"
        return
    step = entry.get("step")
    if type(step) is not int or step < 1:
        yield f"parameter {i}: step is {step!r}, expected an int >= 1"
    given = [name for name in entry if name != "step"]
    if names is not None and set(given) != set(names):
        yield f"parameter {i} has the state {sorted(given)}, expected {sorted(names)}"
    for name in given:
        array = entry[name]
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            kind = array.dtype if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            yield f"parameter {i}: {name} is {kind}, expected a NumPy array of floats"
        elif array.shape != p.shape:
            yield f"parameter {i}: {name} has shape {array.shape}, the parameter {p.shape}"


def _mismatch(optimizer: Optimizer, wrong: list[str]) -> StateError:
    lines = "".join(f"\n  {w}" for w in wrong)
    return StateError(
        f"{optimizer._name}.load_state_dict: the saved state does not fit, nothing was "
        f"loaded:{lines}\nBuild the optimizer as it was when state_dict() was called: the same "
        f"class, parameters and groups"
    )


def misfit(what: str, i: int, p: Parameter, g: Array) -> NnxError:
    """The error for a gradient that does not fit parameter number i."""
    backend = backend_of(p.data)
    is_array = hasattr(g, "shape") and hasattr(g, "dtype")
    if not is_array:
        return DtypeError(
            f"{what}: the gradient of parameter {i} is a {type(g).__name__}, expected an array of "
            f"shape {p.shape}; assign nnx.asarray(...) to .grad"
        )
    if not backend.owns(g):
        try:
            given = repr(backend_of(g).name)
        except DtypeError:
            given = type(g).__name__
        return MixedBackendsError(
            f"{what}: the gradient of parameter {i} is an array of backend {given}, the parameter "
            f"is of {backend.name!r}; call opt.zero_grad() and backward() again, or write "
            f"p.grad = nnx.asarray(p.grad, backend={backend.name!r})"
        )
    if tuple(g.shape) != p.shape:
        return ShapeError(
            f"{what}: the gradient of parameter {i} has shape {tuple(g.shape)}, the parameter "
            f"{p.shape}; assign a gradient of the parameter's shape to .grad"
        )
    dtype = backend.dtype_name(p.data)
    return DtypeError(
        f"{what}: the gradient of parameter {i} is {backend.dtype_name(g)}, the parameter "
        f"{dtype}; call opt.zero_grad() and backward() again, or write "
        f"p.grad = nnx.asarray(p.grad, {dtype!r})"
    )
