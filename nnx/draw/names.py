"""What the values in a drawing are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backend import NUMBERS
from ..errors import OptionError
from ..layers import Layer
from ..tensor import Tensor


class Names:
    """Given names, and made ones that differ from these.

    given   names with Tensors, arrays, or layers, whose parameters are then "name.0.W"; the name ""
            of a layer leaves its parameters' names as they are
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()
        self._held = list(given.values())  # an id lasts as long as its object
        for name, value in given.items():
            if isinstance(value, Layer):
                for inner, p in value.named_parameters():
                    self._give(f"{name}.{inner}".lstrip("."), p)
            else:
                self._give(name, value)

    def _give(self, name: Any, value: Any) -> None:
        if not isinstance(name, str) or not (isinstance(value, Tensor) or hasattr(value, "shape")):
            raise OptionError(
                f"draw: names has {name!r}: {type(value).__name__}, expected names with Tensors, "
                f"arrays or layers, such as names={{'x': x, 'net': net}}"
            )
        self._taken.add(name)
        if isinstance(value, Tensor):
            self._names[id(value if value._node is None else value._node), value._index] = name
            value = value._data
        if type(value) not in NUMBERS:  # equal ints are one object
            self._names.setdefault(id(value), name)

    def of(self, key: Any) -> str | None:
        """That of a leaf or a call's output by its key, of an array by its id."""
        return self._names.get(key)

    def new(self, base: str) -> str:
        """The base, or base_2, base_3, ..."""
        name, n = base, 1
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name
