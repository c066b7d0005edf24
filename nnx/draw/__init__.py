"""Drawing computation graphs, as the book does: values forward, gradients backward."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing import Drawing

__all__ = ["draw"]


def draw(
    what: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    x: Any = None,
    names: Mapping[str, Any] | None = None,
    dout: Any = None,
    limit: int = 200,
) -> Drawing:
    """The computation graph of a Tensor: values above the arrows, their gradients below.

        apple, number, tax = (nnx.Tensor(v, requires_grad=True) for v in (100.0, 2.0, 1.1))
        price = apple * number * tax
        nnx.draw(price, "price.svg", names={"apple": apple, "number": number, "tax": tax})
        nnx.draw(net, "net.svg", x=batch)

    what    a computed Tensor: what was recorded of it is drawn. Or a layer, which is called on x in
            evaluation mode; no gradient is kept and no mode changed
    path    where to write it: .svg, .png, .pdf, .dot (for Graphviz) or .txt
    x       for a layer: its input, or a tuple of its inputs: arrays, Tensors or Python numbers
    names   names for Tensors, arrays, and layers, whose parameters are then "name.0.W"
    dout    gradient of the result with respect to `what`, of its shape and dtype; a number, 1 by
            default, stands for an array full of it
    limit   how many calls to draw, counted from the result back

    A number has 4 significant digits. An array has its shape and dtype, and its values if these are
    at most 4; its gradient then its norm. Where a value is used several times, each arrow has the
    gradient of its use; their sum stands in the text. Hooks are called as in `backward()`.

    The result is text when printed and a picture in a notebook; `.save(path)` writes it later.
    Pictures are made by Graphviz's `dot`. SVG needs none: where `dot` is missing or fails, nnx
    places the boxes itself.

    Draw before `backward()`, or keep what it reads with `backward(retain_graph=True)`; after it
    only the gradients that it left in the leaves are known. Of a number that no derivative reads,
    as the 3 in x + 3, the tape has nothing: it is "?".

    Raises OptionError for what cannot be drawn, StateError for a Tensor without a recorded graph,
    PackageError if .png or .pdf is asked for without Graphviz, DataError if the file cannot be
    written.
    """
    from .drawing import suffix_of
    from .make import make

    if path is not None:
        suffix_of(path)  # before the work
    made = make(what, x, {} if names is None else names, dout, limit)
    if path is not None:
        made.save(path)
    return made
