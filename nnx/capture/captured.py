"""The captured function: which plan applies, when to record, when to compare."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..backend import (
    Backend,
    _scoped,
    backend_of,
    get_backend,
    load_backend,
    mixed_backends,
    recording,
)
from ..errors import CaptureError, OptionError, StateError
from ..precision import get_matmul_precision
from ..tape import is_recording
from ..tensor import Tensor, tensor
from . import checked
from .arguments import Arguments, count_moved, moved
from .compare import Entry, difference, entries
from .log import Line
from .pending import Pending, verify
from .plan import Plan
from .recorder import Recorder, recorder_for
from .recording import Recording
from .report import Report
from .state import State
from .tree import flatten, rebuild
from .undo import all_or_nothing, planned

FUSE = ("exact", "fast")


class Captured:
    """See `nnx.capture`.

    fn   the function itself, to be called eagerly
    """

    def __init__(
        self, fn: Callable[..., Any], *, check: bool, max_plans: int, fuse: str,
        backend: str | None,
    ) -> None:  # fmt: skip
        if not callable(fn):
            raise OptionError(f"capture: got a {type(fn).__name__}, expected a function or a layer")
        if isinstance(max_plans, bool) or not isinstance(max_plans, int) or max_plans < 1:
            raise OptionError(f"capture: max_plans={max_plans!r}, expected an int of at least 1")
        if fuse not in FUSE:
            raise OptionError(f"capture: fuse={fuse!r}, expected {' or '.join(map(repr, FUSE))}")
        self.fn, self.check, self.max_plans, self.fuse = fn, check, max_plans, fuse
        self.backend = backend
        self._plans: dict[Any, list[Plan]] = {}
        self._pending: dict[Any, list[Pending]] = {}
        self._clock = 0
        self._latest: Plan | None = None
        self._lock = threading.RLock()
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if recording() is not None:  # another captured function records: this is part of it
            return self.fn(*args, **kwargs)
        with self._lock:
            plan = self._latest
            if plan is not None and not kwargs and not self.check:
                arrays = plan.expected.arrays(args)
                if arrays is not None and plan.holds():
                    return plan.replay(arrays)
            given = self._arguments(args, kwargs)
            plan = self._find(given.key)
            if plan is None:
                return self._record(given)
            if self.check:
                return checked.compared(self, plan, given)
            return plan.replay(given.arrays)

    def plan(self) -> Report:
        """What the plan used last does and holds; print it.

        Raises StateError before there is one.
        """
        if self._latest is None:
            raise StateError(
                "plan() before there is one: call the captured function twice with arguments of "
                "the same shapes"
            )
        return self._latest.report

    def _arguments(self, args: Any, kwargs: Any) -> Arguments:
        arrays: list[Any] = []
        form = (
            tuple([flatten(a, arrays, f"argument {i}") for i, a in enumerate(args)]),
            flatten(kwargs, arrays, "the keywords") if kwargs else None,
        )
        for i, a in enumerate(arrays):
            if isinstance(a, Tensor):
                if a.requires_grad:
                    raise CaptureError(
                        f"capture: an argument (shape {a.shape}) is a Tensor that requires a "
                        f"gradient; take Parameters from the scope around the function, and make "
                        f"a Tensor of an array that needs a gradient inside it"
                    )
                arrays[i] = a._data
        base = self._base(arrays)
        memory, owns = recorder_for(base).replay(), base.owns
        for i, a in enumerate(arrays):
            if not owns(a) and not (self.backend is not None and memory.takes(a)):
                raise mixed_backends("capture", base, a, f"arguments[{i}]")
        shapes = tuple([memory.key(a) for a in arrays])
        key = (form, shapes, base, is_recording(), get_matmul_precision())
        return Arguments(arrays, form, base, key)

    def _base(self, arrays: list[Any]) -> Backend:
        if self.backend is not None:
            return load_backend(self.backend)
        return backend_of(arrays[0]) if arrays else get_backend()

    def _find(self, key: Any) -> Plan | None:
        for plan in self._plans.get(key, ()):
            if plan.holds():
                self._clock += 1
                plan.used, self._latest = self._clock, plan
                return plan
        return None

    # recording

    def run(self, given: Arguments, arrays: list[Any], record: Recording) -> Any:
        """Call the function on those arrays, recorded; its result, as a form and arrays."""
        left = iter(arrays)
        forms, named = given.form
        args = [rebuild(form, left, _argument) for form in forms]
        kwargs = {} if named is None else rebuild(named, left, _argument)
        with recorded(recorder_for(given.base), record):
            result = self.fn(*args, **kwargs)
        form = flatten(result, record.outputs, f"what {self.__name__} returned")
        for i, y in enumerate(record.outputs):
            record.outputs[i] = y._data if isinstance(y, Tensor) else y
        record.see(record.outputs)
        record.verify(self.end)
        return form

    def begin(self, given: Arguments) -> tuple[Recording, list[Any]]:
        """A recording with buffers for the arguments, and the views that the function gets."""
        memory = given.base.replay()
        count_moved(*moved(memory, given.arrays))
        made = [memory.standin(a) for a in given.arrays]
        known, waiting = self._known(), self._pending.get(given.key, ())
        outside = {id(root): root for old in waiting for root in old.fixed}.values()
        return Recording(given.base, [b for b, _ in made], known, outside), [v for _, v in made]

    def _record(self, given: Arguments) -> Any:
        waiting = [old for old in self._pending.get(given.key, ()) if old.holds()]
        options = [pair for old in self._pending.get(given.key, ()) for pair in old.options()]
        record, arrays = self.begin(given)
        with all_or_nothing(record, arrays):
            form = self.run(given, arrays, record)
            verify(options, self.end)
            return self._compared(given, record, form, waiting)

    def _compared(
        self, given: Arguments, record: Recording, form: Any, waiting: list[Pending]
    ) -> Any:
        found = entries(record, self.end, form)
        self._pending[given.key] = waiting
        pending = Pending.of(record, found)
        for old in waiting:
            problem = difference(old.entries, found)
            if problem is None:
                return self._planned(given, record, form, found, old)
            if old.state.same(pending.state) and not old.explains(record):
                waiting.remove(old)  # the next call is compared with one after this
                raise problem
        made = results(record, form)
        record.forget()
        waiting.append(pending)
        del waiting[: -self.max_plans]
        while len(self._pending) > self.max_plans:
            del self._pending[next(iter(self._pending))]
        return made

    def _planned(
        self, given: Arguments, record: Recording, form: Any, found: list[Entry], old: Pending
    ) -> Any:
        """Two runs agree: make the plan, and give this run's result."""
        lasting = {id(t) for t in old.tensors}
        leaves = [leaf for key, leaf in record.leaves.items() if key in lasting]
        state, fast = State(record, leaves), self.fuse == "fast"
        result, plan = planned(
            lambda: (results(record, form), Plan(record, state, form, found, given, fast))
        )
        del self._pending[given.key]
        self._plans.setdefault(given.key, []).append(plan)
        self._clock += 1
        plan.used, self._latest = self._clock, plan
        if sum(map(len, self._plans.values())) > self.max_plans:
            self._drop()
        return result

    def _drop(self) -> None:
        """Forget the plan that was not used for longest."""
        key, plan = min(
            ((k, p) for k, plans in self._plans.items() for p in plans), key=lambda kp: kp[1].used
        )
        self._plans[key].remove(plan)
        if not self._plans[key]:
            del self._plans[key]

    def _known(self) -> list[Tensor]:
        """Leaves that earlier runs found."""
        found = {id(t): t for ps in self._pending.values() for p in ps for t in p.tensors}
        for plans in self._plans.values():
            for plan in plans:
                found.update((id(leaf.tensor), leaf.tensor) for leaf, _ in plan.state.leaves)
        return list(found.values())

    @property
    def end(self) -> Line:
        """Where the function is: for what has no line of its own."""
        code = getattr(self.fn, "__code__", None)
        return ("", 0) if code is None else (code.co_filename, code.co_firstlineno)

    def __get__(self, instance: Any, owner: type | None = None) -> Captured:
        """As a method: plans are of an instance, which keeps them."""
        if instance is None or not hasattr(self.fn, "__get__"):
            return self
        methods = vars(instance).get("_captured")
        if methods is None or methods.instance is not instance:
            methods = vars(instance)["_captured"] = Methods(instance)
        found: Captured | None = methods.made.get(self)
        if found is None:
            found = type(self)(self.fn.__get__(instance, owner), **self._options())
            methods.made[self] = found
        return found

    def _options(self) -> dict[str, Any]:
        return {
            "check": self.check, "max_plans": self.max_plans, "fuse": self.fuse,
            "backend": self.backend,
        }  # fmt: skip

    def __reduce__(self) -> Any:
        """A copy has no plans: they are of the parameters that they were recorded with."""
        return partial(type(self), **self._options()), (self.fn,)

    def __repr__(self) -> str:
        count = sum(map(len, self._plans.values()))
        return f"<captured {self.__name__}, {count} plan{'s' if count != 1 else ''}>"


class Methods:
    """The captured methods of one instance; a copy of it makes its own."""

    def __init__(self, instance: Any = None) -> None:
        self.instance, self.made = instance, dict[Captured, Captured]()

    def __reduce__(self) -> Any:
        return Methods, ()


@contextmanager
def recorded(recorder: Recorder, record: Recording) -> Any:
    """Make the recorder the current backend, and the recording its own, in this thread."""
    token, scope = recorder.start(record), _scoped.set(recorder)
    try:
        yield
    finally:
        _scoped.reset(scope)
        recorder.stop(token)


def _argument(array: Any, is_tensor: bool) -> Any:
    return tensor(array) if is_tensor else array


def results(record: Recording, form: Any) -> Any:
    """Copies of what the function returned."""
    copy = record.base.copy
    return rebuild(
        form, iter(record.outputs), lambda a, is_tensor: tensor(copy(a)) if is_tensor else copy(a)
    )
