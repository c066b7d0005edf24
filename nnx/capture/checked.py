"""`check=True`: each replay beside an eager call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CaptureError
from .compare import difference, entries
from .log import Leaf, bare, gradient_of, set_gradient, shown
from .plan import Plan
from .tree import flatten
from .undo import all_or_nothing

if TYPE_CHECKING:
    from .arguments import Arguments
    from .captured import Captured


class Snapshot:
    """All that a call of the plan changes, to be put back and to be compared."""

    def __init__(self, plan: Plan) -> None:
        self.plan, copy = plan, plan.recording.base.copy
        self.targets = [(a, copy(a)) for a in plan.targets]
        root, owns = plan.memory.root, plan.recording.base.owns
        self.gradients = {id(root(leaf.grad)) for leaf in plan.slots if owns(leaf.grad)}
        tensors = [leaf.tensor for leaf, _ in plan.state.leaves]
        self.leaves = [(t, gradient_of(t), _copied(copy, t.grad), t._version) for t in tensors]
        self.steps = [(s, s.steps()) for s in plan.recording.sources]
        self.generators = [(g, g.bit_generator.state) for g in plan.generators]

    def restore(self) -> None:
        copy = self.plan.recording.memory.copy
        for array, saved in self.targets:
            copy(array, saved)
        for t, grad, saved, version in self.leaves:
            set_gradient(t, grad)
            t._version = version
            if grad is not None:
                copy(bare(t.grad), saved)
        for source, steps in self.steps:
            source.rewind(steps)
        for generator, state in self.generators:
            generator.bit_generator.state = state

    def parts(self) -> list[tuple[str, Any]]:
        """What is compared, with names."""
        named = [
            (f"the gradient of the parameter of shape {t.shape}", saved)
            for t, _, saved, _ in self.leaves
        ]
        named += [
            (f"an array of shape {tuple(a.shape)} that is updated (a parameter, or state)", saved)
            for a, saved in self.targets
            if id(a) not in self.gradients  # compared already, wherever it lies
        ]
        named += [("an optimizer's count of steps", steps) for _, steps in self.steps]
        named += [("the random generator's state", str(state)) for _, state in self.generators]
        return named


def compared(captured: Captured, plan: Plan, given: Arguments) -> Any:
    """The eager result, after a replay from the same state gave the same; else CaptureError."""
    base = given.base
    if any(Leaf(leaf.tensor).free is not leaf.free for leaf, _ in plan.state.leaves):
        return _eager(captured, given)  # somebody holds a gradient: it goes another way, unlike
    before = Snapshot(plan)
    replayed: list[Any] = []
    flatten(plan.replay(given.arrays), replayed, "the result")
    replayed = [getattr(a, "__nnx_data__", a) for a in replayed]
    after = Snapshot(plan)
    before.restore()
    record, arrays = captured.begin(given)
    with all_or_nothing(record, arrays):
        form = captured.run(given, arrays, record)
        problem = difference(plan.entries, entries(record, captured.end, form))
        if problem is not None:
            raise problem
        eager = Snapshot(plan)
    outputs = zip(replayed, record.outputs, strict=True)
    pairs = [(f"output {i}", a, b) for i, (a, b) in enumerate(outputs)]
    pairs += [(n, a, b) for (n, a), (_, b) in zip(after.parts(), eager.parts(), strict=True)]
    for name, a, b in pairs:
        if not _equal(base, a, b):
            raise CaptureError(
                f"{shown(captured.end)}: check: after a replay {name} differs from what an eager "
                f"call gives from the same state"
            )
    from .captured import results

    return results(record, form)


def _eager(captured: Captured, given: Arguments) -> Any:
    from .captured import results

    record, arrays = captured.begin(given)
    with all_or_nothing(record, arrays):
        return results(record, captured.run(given, arrays, record))


def _copied(copy: Any, grad: Any) -> Any:
    return None if grad is None else copy(bare(grad))


def _equal(base: Any, a: Any, b: Any) -> bool:
    if not (base.owns(a) and base.owns(b)):
        return bool(a is b or (type(a) is type(b) and a == b))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    xp = base.xp
    same = a == b
    if "float" in base.dtype_name(a):
        same = same | (xp.isnan(a) & xp.isnan(b))
    return bool(xp.all(same))
