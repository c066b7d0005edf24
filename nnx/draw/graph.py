"""A graph as words: what stands in the boxes of its drawing and beside the arrows."""

from __future__ import annotations

from dataclasses import dataclass, field

SYMBOLS = {
    "add": "+", "subtract": "\u2212", "multiply": "\u00d7", "divide": "\u00f7", "matmul": "@",
    "negative": "\u2212",
}  # fmt: skip


@dataclass
class Value:
    """A name, what it is, in lines, and its gradient, "" where that is not known."""

    name: str
    about: tuple[str, ...]
    gradient: str = ""


@dataclass
class Box:
    """A call, or what calls start from.

    kind     "call", "leaf", "constant" (an array), "number", or "cut": a call that is left out
    symbol   what stands in the box
    values   what comes out of it: one, or several where the call's result is a tuple
    call     the call as text, with the names of its arguments
    """

    kind: str
    symbol: str
    values: list[Value]
    call: str = ""


@dataclass
class Arrow:
    """One use of a value, from a box's output to a box, and the gradient of this use."""

    source: int
    output: int
    target: int
    gradient: str = ""


@dataclass
class Graph:
    """The boxes in the order of evaluation, the arrows, the result's box and output, remarks.

    A leaf that is used often, and a constant used again, is in it several times, so that no arrow
    runs through the whole.
    """

    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    result: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)

    @property
    def end(self) -> Value:
        return self.value(*self.result)

    def value(self, source: int, output: int) -> Value:
        return self.boxes[source].values[output]
