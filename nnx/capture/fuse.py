"""Finding what a backend has one kernel for: its fusions, in the calls of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from ..backend import Array, Backend, load_backend
from ..calls import Empty, Later, Run
from ..override import Fusion, Overrides
from .log import Call
from .schedule import Schedule


class Fused:
    """What a fused call runs: the fusion, with the names of the call's arguments and results."""

    def __init__(self, fusion: Fusion, given: list[str], made: list[str], attrs: Any) -> None:
        self.fusion, self.given, self.made, self.attrs = fusion, given, made, attrs
        self.__name__ = fusion.__name__

    def runs(self, empty: Empty, args: Any, results: Any) -> list[Run]:
        named = {**dict(zip(self.given, args, strict=True)), **self.attrs}
        named.update(zip(self.made, results, strict=True))
        later = Later((), empty)
        taken = self.fusion.build(later, **named)
        assert taken  # it was asked when it was found
        return later.runs

    def lends(self, args: Any) -> list[Array]:
        pairs = zip(self.given, args, strict=True)
        return [a for name, a in pairs if name in self.fusion.inplace]


class Match(NamedTuple):
    """Calls that fit a fusion: their places, and the values of its names."""

    places: list[int]
    bound: dict[str, Any]


def fuse(schedule: Schedule, fast: bool) -> dict[str, int]:
    """Replace calls by fused ones where they fit; how often each. `fast`: inexact ones too."""
    counts: dict[str, int] = {}
    for fusion, table in fusions_of(schedule.base):
        if not (fusion.exact or fast):
            continue
        kernels = [table.kernel(target) for target, _, _ in fusion.steps]
        start = 0
        while (found := _next(schedule, fusion, kernels, start)) is not None:
            if _replace(schedule, fusion, found):
                counts[fusion.__name__] = counts.get(fusion.__name__, 0) + 1
            start = found.places[0] + 1
    return counts


def fusions_of(backend: Backend) -> Iterator[tuple[Fusion, Overrides]]:
    """The backend's own, then those of its parent's kernels, each with its table."""
    table = backend.kernels
    if isinstance(table, Overrides):
        yield from ((fusion, table) for fusion in table.fusions)
    if backend.parent is not None:
        yield from fusions_of(load_backend(backend.parent))


def _next(
    schedule: Schedule, fusion: Fusion, kernels: list[Any], start: int
) -> Match | None:  # fmt: skip
    for i in range(start, len(schedule.calls)):
        found = _extended(schedule, fusion, kernels, Match([], {}), i)
        if found is not None:
            return found
    return None


def _extended(
    schedule: Schedule, fusion: Fusion, kernels: list[Any], match: Match, i: int
) -> Match | None:
    """The match with call i as its next step, and the rest of the steps among later calls."""
    k = len(match.places)
    call = schedule.calls[i]
    if call.function is not kernels[k] or call.kind not in ("run", "kernel"):
        return None
    bound = _bound(schedule, call, fusion.steps[k][1:], match.bound)
    if bound is None:
        return None
    found = Match([*match.places, i], bound)
    if k + 1 == len(kernels):
        return found
    later = range(i + 1, len(schedule.calls))
    options = (_extended(schedule, fusion, kernels, found, j) for j in later)
    return next((m for m in options if m is not None), None)


def _bound(
    schedule: Schedule, call: Call, names: tuple[tuple[str, ...], tuple[str, ...]],
    known: Mapping[str, Any],
) -> dict[str, Any] | None:  # fmt: skip
    """The names with the call's values, if these agree with those that are known."""
    given, made = names
    if len(made) != len(call.results):
        return None
    bound = dict(known)
    for name, value in (*zip_longest(given, call.args), *zip(made, call.results, strict=True)):
        if name is None and value is not None:
            return None
        if name in (None, "_") or (name == "1" and schedule.constantly(value, 1)):
            continue
        if name == "1":
            return None
        if name in bound and not schedule.same(bound[name], value):
            return None
        bound[name] = value
    return bound


def _replace(schedule: Schedule, fusion: Fusion, match: Match) -> bool:
    """Put one call in place of those, where nothing between them stands in the way."""
    calls, found = schedule.calls, [schedule.calls[i] for i in match.places]
    attrs = {k: v for c in found for k, v in c.attrs.items()}
    if not attrs.keys() <= fusion.names:  # an option that it does not know
        return False
    made = [n for _, _, names in fusion.steps for n in names]
    given = [n for _, names, _ in fusion.steps for n in names if n not in (*made, "_", "1")]
    given = [n for n in dict.fromkeys(given) if n in fusion.names]
    kept = [n for n in dict.fromkeys(made) if n in fusion.names]
    if not _inner_unused(schedule, match, [n for n in made if n not in kept]):
        return False
    fused = Fused(fusion, given, kept, attrs)
    named = {n: match.bound.get(n) for n in (*given, *kept)}
    if not fusion.build(Later((), schedule.memory.new), **named, **attrs):
        return False
    place = _place(schedule, match)
    if place is None:
        return False
    writes = tuple(a for c in found for a in c.writes)
    one = Call(
        "fused", fused, tuple(named[n] for n in given), {}, found[-1].line,
        tuple(named[n] for n in kept), writes,
    )  # fmt: skip
    left = [c for i, c in enumerate(calls) if i not in match.places]
    before = sum(1 for i in range(place) if i not in match.places)
    schedule.calls = [*left[:before], one, *left[before:]]
    return True


def _inner_unused(schedule: Schedule, match: Match, names: list[str]) -> bool:
    """Whether no other call, and nothing after the replay, needs these results."""
    inner = {schedule.root_id(match.bound[n]) for n in names if schedule.owns(match.bound[n])}
    others = [c for i, c in enumerate(schedule.calls) if i not in match.places]
    return not inner & schedule.kept and not any(inner & schedule.touched(c) for c in others)


def _place(schedule: Schedule, match: Match) -> int | None:
    """Where all of the calls can be made at once: at the first of them, or at the last."""
    first, last = match.places[0], match.places[-1]
    between = [c for i, c in enumerate(schedule.calls) if first < i < last]
    between = [c for c in between if not any(c is schedule.calls[i] for i in match.places)]

    def passes(moving: list[int], crosses: Callable[[int], list[Call]]) -> bool:
        return not any(schedule.clash(schedule.calls[i], c) for i in moving for c in crosses(i))

    calls = schedule.calls
    if passes(match.places[1:], lambda i: [c for c in between if calls.index(c) < i]):
        return first
    if passes(match.places[:-1], lambda i: [c for c in between if calls.index(c) > i]):
        return last
    return None
