"""What `nnx.draw` gives: a graph that shows itself, and goes into files."""

from __future__ import annotations

import os

from ..errors import OptionError, PackageError
from ..files import write_file
from .dot import dot, render
from .graph import Graph
from .svg import svg
from .text import text

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".txt")


class Drawing:
    """A drawn graph. It is text when printed, a picture in a notebook; `save(path)` writes it.

    It holds words alone, none of the arrays.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as what the path ends in: .svg, .png, .pdf, .dot or .txt."""
        suffix = suffix_of(path)
        if suffix == ".txt":
            data = f"{self}\n".encode()
        elif suffix == ".dot":
            data = dot(self.graph).encode()
        elif suffix == ".svg":
            data = self._repr_svg_().encode()
        else:
            data = render(self.graph, suffix[1:])
        write_file(path, data)

    def _repr_svg_(self) -> str:
        """By Graphviz; by nnx itself where that is missing or fails."""
        try:
            return render(self.graph, "svg").decode()
        except PackageError:
            return svg(self.graph)

    def __str__(self) -> str:
        return text(self.graph)

    __repr__ = __str__


def suffix_of(path: str | os.PathLike[str]) -> str:
    """What the path ends in; OptionError unless that is one of SUFFIXES."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in SUFFIXES:
        raise OptionError(
            f"draw: the path {os.fspath(path)!r} ends in {suffix or 'nothing'!r}, expected one of "
            f"{', '.join(SUFFIXES)}"
        )
    return suffix
