"""Two recordings side by side: what a replay would repeat although it changes."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import CaptureError
from .log import SLOT, Call, Leaf, Line, bare, gradient_of, shown
from .recording import Recording
from .trace import each


class At(NamedTuple):
    """An array by what made its memory, and its place in it."""

    label: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class Entry(NamedTuple):
    """One call of a recording, without its arrays."""

    name: str
    function: Any
    values: Any
    results: tuple[At, ...]
    line: Line


def entries(recording: Recording, line: Line, form: Any) -> list[Entry]:
    """What must be equal in two runs: the calls, what the function returned, the gradients left.

    line   stands for what has none of its own
    form   of what the function returned
    """
    labels: dict[int, tuple[Any, ...]] = {}
    for i, leaf in enumerate(recording.leaves.values()):
        grad = bare(leaf.grad)
        if recording.base.owns(grad):
            labels[id(recording.memory.root(grad))] = ("grad", i)

    def at(array: Any) -> At:
        root = recording.memory.root(array)
        storage = recording.storages.get(id(root))
        label = ("outside",) if storage is None else storage.label
        origin = root if storage is None else storage.origin
        if label == ("outside",):
            label, origin = labels.get(id(root), ("outside", id(root))), root
        place = recording.memory.offset(array, origin)
        return At(label, place, tuple(array.shape), tuple(array.strides), str(array.dtype))

    def described(value: Any) -> Any:
        return each(value, lambda v: at(v) if recording.base.owns(v) else v)

    found = [
        Entry(c.name, c.function, described(_values(c)), tuple(at(a) for a in c.results), c.line)
        for c in recording.calls
    ]
    found.append(Entry("return", None, (form, described(recording.outputs)), (), line))
    finals = [
        None if _untouched(recording, leaf) else described(gradient_of(leaf.tensor))
        for leaf in recording.leaves.values()
    ]
    kept = ("grad", "outside")
    finals = [None if isinstance(f, At) and f.label[0] in kept else f for f in finals]
    found.append(Entry("gradients", None, finals, (), line))
    return found


def _untouched(recording: Recording, leaf: Leaf) -> bool:
    """Whether the run left the gradient that was there: which one, does not matter then."""
    grad = gradient_of(leaf.tensor)
    if grad is not leaf.grad:
        return False
    if grad is not SLOT:
        return True
    return leaf.tensor.size > 0 and not recording.touches(leaf.tensor.slot)


def _values(call: Call) -> Any:
    if call.kind == "numbers":
        source = call.args[0]
        return (source.plan, [len(run.states) for run in source.runs])
    return (call.args, dict(call.attrs))


def difference(old: list[Entry], new: list[Entry]) -> CaptureError | None:
    """The error for the first difference, None if there is none."""
    for a, b in zip(old, new, strict=False):
        if a.name != b.name or a.function is not b.function:
            return _other_path(a, b)
        pair = _first(a.values, b.values) or _first(a.results, b.results)
        if pair is not None:
            return _explained(b, *pair)
    return None if len(old) == len(new) else _other_path(old[-1], new[-1])


def _first(a: Any, b: Any) -> tuple[Any, Any] | None:
    """The first pair of values that differ in two nested ones."""
    if type(a) is not type(b):
        return a, b
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return a, b
        pairs = [(a[k], b[k]) for k in a]
    elif isinstance(a, At) or not isinstance(a, (tuple, list)):
        if isinstance(a, slice):
            return _first((a.start, a.stop, a.step), (b.start, b.stop, b.step))
        return None if a is b or bool(a == b) or (a != a and b != b) else (a, b)
    elif len(a) != len(b):
        return a, b
    else:
        pairs = list(zip(a, b, strict=True))
    return next((found for p in pairs if (found := _first(*p)) is not None), None)


def _other_path(a: Entry, b: Entry) -> CaptureError:
    return CaptureError(
        f"{shown(b.line)}: this call of the captured function came to {b.name!r} where the one "
        f"before came to {a.name!r} ({shown(a.line)}): Python took another path, and a replay "
        f"takes always the same. Choose with nnx.where, or give what decides as an argument that "
        f"is not an array"
    )


def _explained(entry: Entry, a: Any, b: Any) -> CaptureError:
    place = shown(entry.line)
    if isinstance(a, At) and isinstance(b, At):
        if "outside" in (a.label[0], b.label[0]):
            what = "was returned" if entry.name == "return" else f"is given to {entry.name!r}"
            return CaptureError(
                f"{place}: an array of shape {b.shape} {what} that was made outside nnx's "
                f"functions and is another one in each call (arithmetic on bare arrays, a mask "
                f"drawn by NumPy): a replay would repeat its values. Give it as an argument, or "
                f"compute it by nnx's functions: nnx.divide(x, 255.0), nnx.dropout"
            )
        if a.shape != b.shape or a.dtype != b.dtype:
            return CaptureError(
                f"{place}: {entry.name!r} met shape {a.shape} {a.dtype} in one call and {b.shape} "
                f"{b.dtype} in the next, with arguments of equal shapes: a replay has fixed shapes"
            )
        return _other_path(entry, entry)
    return CaptureError(
        f"{place}: {entry.name!r} is given the Python value {_brief(a)} in one call and "
        f"{_brief(b)} in the next: a replay would repeat it. Give it as an argument of the "
        f"captured function, as an array: nnx.asarray(value, 'float32')"
    )


def _brief(value: Any) -> str:
    text = f"an array of shape {value.shape}" if isinstance(value, At) else repr(value)
    return text if len(text) < 80 else text[:77] + "..."
