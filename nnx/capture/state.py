"""What must be as it was when a run was recorded: layers' modes, parameters, gradients."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .log import SLOT, Leaf, bare
from .recording import READS, Recording

ANY, NONE, ARRAY = "any", "none", "array"


class State:
    """Leaves and layers as a plan needs them.

    leaves   each with what must hold of its gradient: ANY, NONE, SLOT (it lies in the parameter's
             slot), ARRAY (one that can be copied to where the recorded one lay)
    """

    def __init__(self, recording: Recording, leaves: list[Leaf]) -> None:
        self.recording = recording
        self.layers = list(recording.layers.values())
        self.leaves = [(leaf, self._gradient(leaf)) for leaf in leaves]
        self._data = [(leaf.tensor, leaf.data, leaf.requires_grad) for leaf in leaves]
        self._gradients = [(leaf, kind) for leaf, kind in self.leaves if kind is not ANY]

    def _gradient(self, leaf: Leaf) -> str:
        if leaf.grad is None:
            return NONE
        lies = leaf.tensor.slot if leaf.grad is SLOT else bare(leaf.grad)
        if self.recording.touches(lies) != READS:
            return ANY
        return SLOT if leaf.grad is SLOT else ARRAY

    def holds(self) -> bool:
        """Whether leaves and layers are as they were before the recorded run."""
        for layer, training in self.layers:
            if layer.training is not training:
                return False
        for t, data, requires_grad in self._data:
            if t._data is not data or t.requires_grad is not requires_grad:
                return False
        return all([self._gradient_holds(leaf, kind) for leaf, kind in self._gradients])

    def _gradient_holds(self, leaf: Leaf, kind: str) -> bool:
        t: Tensor = leaf.tensor
        if kind is NONE:
            return t.grad is None
        if kind is SLOT:
            return t.grad is not None and t.grad is t.slot
        return t.grad is leaf.grad or self._fits(leaf.grad, t.grad)

    def _fits(self, slot: Any, grad: Any) -> bool:
        """Whether it can be copied there; one with a history cannot."""
        owns = self.recording.base.owns
        both = owns(slot) and owns(grad)
        return both and bool(grad.shape == slot.shape and grad.dtype == slot.dtype)

    def same(self, other: State) -> bool:
        """Whether two runs began alike: then a difference between them is not explained by it."""
        modes = {id(x): mode for x, mode in other.layers}
        if any(modes.get(id(x), mode) is not mode for x, mode in self.layers):
            return False
        theirs = {id(leaf.tensor): (leaf, kind) for leaf, kind in other.leaves}
        for leaf, kind in self.leaves:
            found = theirs.get(id(leaf.tensor))
            if found is None:
                continue
            b, kind_b = found
            if leaf.data is not b.data or leaf.requires_grad is not b.requires_grad:
                return False
            if leaf.free is not b.free:
                return False
            if kind is not kind_b and ANY not in (kind, kind_b):
                return False
        return True
