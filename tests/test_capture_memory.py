"""Arguments that a replay reads where they lie, results that are new arrays, the code it is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, both, equal, model, train, trainer
from samples import SAMPLES

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture
from nnx.capture.schedule import Schedule
from nnx.op import op

BACKENDS = [name for name in ("numpy", "numba") if nnx.backends()[name].available]
CASES = [case for cases in SAMPLES.values() for case in cases]


@pytest.fixture(params=BACKENDS)
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A backend whose replays read all arguments where they lie, however small."""
    with nnx.use_backend(request.param) as backend:
        monkeypatch.setattr(type(backend.replay()), "in_place", 0)
        yield request.param


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_op_on_arguments_read_where_they_lie(case: Any, in_place: str) -> None:
    first, attrs = case.make("float32")
    fixed = any(isinstance(v, np.ndarray) for v in attrs.values())

    def f(*arrays: Any) -> Any:
        left = iter(arrays)
        args = [nnx.Tensor(next(left)) if isinstance(a, np.ndarray) else a for a in first]
        learned = [a for a in args if isinstance(a, nnx.Tensor) and a.dtype.kind == "f"]
        for a in learned:
            a.requires_grad = True
        y = case.op(*args, **attrs)
        ys = y if isinstance(y, tuple) else (y,)
        if ys[0].requires_grad:
            nnx.sum(ys[0] * ys[0]).backward()
        return [v.data for v in ys], [a.grad for a in learned]

    step = capture(f)
    with np.errstate(all="ignore"):
        for seed in range(4):
            args, _ = case.make("float32", 0 if fixed else seed)
            arrays = [a for a in args if isinstance(a, np.ndarray)]
            before = [a.copy() for a in arrays]
            eager, replayed = f(*arrays), step(*arrays)
            assert all(map(np.array_equal, before, arrays))  # they were only read
            for a, b in zip([*eager[0], *eager[1]], [*replayed[0], *replayed[1]], strict=True):
                if a is not None and not (case.op.name == "gelu" and a.shape == ()):
                    assert np.array_equal(a, b, equal_nan=True)


def test_training_on_batches_read_where_they_lie(in_place: str) -> None:
    both(lambda wrap: train(wrap, net := model(), optim.Adam(net.parameters()), batches(12), 0.5))


def results(f: Callable[..., Any], *arrays: Any, times: int = 5) -> tuple[Any, list[Any]]:
    step = capture(f)
    return step, [step(*arrays) for _ in range(times)]


def test_results_are_the_callers_own(in_place: str) -> None:
    x = np.arange(6.0).reshape(2, 3)
    step, found = results(lambda x: (nnx.exp(x), nnx.exp(x)[0], x), x)
    for k in range(3):
        for i, a in enumerate(found):
            assert not any(np.shares_memory(a[k], b[k]) for b in found[i + 1 :])
            assert not np.shares_memory(a[k], x)
            a[k][...] = -1
    assert np.array_equal(step(x)[0], np.exp(np.arange(6.0).reshape(2, 3)))


def test_an_argument_that_the_replay_writes_is_copied_first(in_place: str) -> None:
    """As in the first calls: a captured function sees its arguments as they were given."""
    net = model()
    opt = optim.SGD(net.parameters(), 0.1)

    def step(W: Any) -> Any:
        opt.zero_grad()
        nnx.sum(nnx.Tensor(W) * net[0].W).backward()
        opt.step()
        return nnx.Tensor(W) * 2.0

    replayed = capture(step)
    for _ in range(5):
        before = net[0].W.data.copy()
        assert np.array_equal(replayed(net[0].W.data).data, before * 2)
        assert not np.array_equal(net[0].W.data, before)


@pytest.mark.parametrize(
    "odd",
    [
        lambda x: x[::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.view(np.matrix),
    ],
    ids=["reversed", "fortran", "unaligned", "broadcast", "subclass"],
)
def test_odd_arrays(odd: Callable[[Any], Any], in_place: str) -> None:
    W = np.ones((3, 2))

    def f(x: Any) -> Any:
        return nnx.softmax(nnx.Tensor(x) @ W)

    step, rng = capture(f), np.random.default_rng(0)
    for _ in range(4):
        x = odd(rng.standard_normal((4, 3)))
        assert np.array_equal(step(x).data, f(np.array(x)).data)


def test_a_plain_array_after_an_odd_one_of_its_layout(in_place: str) -> None:
    def f(x: Any) -> Any:
        return nnx.exp(nnx.Tensor(x))

    step, rng = capture(f), np.random.default_rng(0)
    for i in range(8):
        x = rng.standard_normal((4, 3))
        given = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(4, 3)
        assert np.array_equal(step(given if i % 2 else x).data, f(x).data)


def test_the_code_is_what_runs() -> None:
    net = model()
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
    for x, t in batches(3, rows=200):
        step(x, t)
    code = step.plan().code
    lines = [line.strip() for line in code.splitlines()]
    assert lines[0] == "def replay(x0):" and lines[-1] == "return ()"  # the ids are copied
    assert lines[1].startswith("check_labels(") and lines[2] == "numbers()"
    assert lines[3].startswith("dot(x0, ")
    assert lines.count("x0_0 = x0.T") == 1
    compile(code, "code", "exec")


def test_many_calls_in_a_row_are_a_loop() -> None:
    step = capture(lambda x: nnx.sum(chain(nnx.Tensor(x), 200)))
    x = np.ones((2, 2))
    for _ in range(3):
        y = step(x)
    assert float(y) == float(nnx.sum(chain(nnx.Tensor(x), 200)))
    assert len(step.plan().code.splitlines()) < 20
    assert "for f, args, attrs in calls: f(*args, **attrs)" in step.plan().code


def chain(y: Any, n: int) -> Any:
    for _ in range(n):
        y = nnx.tanh(y)
    return y


def test_large_arguments_need_no_memory_of_the_plans() -> None:
    x = np.ones((500, 500))
    step, _ = results(lambda x: nnx.exp(nnx.Tensor(x)), x, times=3)
    report = step.plan()
    assert report.input_bytes == 0 and report.eager_bytes == x.nbytes


CONSTANTS: dict[str, Callable[[], Any]] = {
    "literal": lambda: nnx.asarray([float(i) for i in range(3000)]),
    "namespace": lambda: nnx.get_backend().xp.eye(64, dtype=np.float32),
}


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS)
def test_constants_that_are_returned(constant: Callable[[], Any]) -> None:
    step, found = results(lambda x: (constant(), nnx.sum(nnx.Tensor(x))), np.ones(4))
    for i, (made, _) in enumerate(found):
        assert np.array_equal(made, constant())
        made[...] = i  # the caller's own
    assert "1 plan>" in repr(step)


def test_a_result_that_is_its_own_cotangent() -> None:
    """An argument that is given twice is not lent for the result."""
    W = nnx.Parameter(np.arange(48, dtype=np.float32).reshape(8, 6) / 50)

    def f(x: Any) -> Any:
        W.grad = None
        y = nnx.softmax(nnx.Tensor(x) @ W)
        y.backward(y.detach())
        return W.grad

    step, rng = capture(f), np.random.default_rng(0)
    for _ in range(5):
        x = rng.standard_normal((16, 8)).astype(np.float32)
        replayed = step(x)
        assert np.array_equal(replayed, f(x))


def test_a_plan_that_is_dropped_frees_its_arrays_at_once() -> None:
    step = capture(lambda x: nnx.exp(nnx.Tensor(x)) * 2.0, max_plans=1)
    for _ in range(3):
        step(np.ones(100))
    run = weakref.ref(step._latest.run)  # type: ignore[union-attr]
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            step(np.ones(50))
        assert run() is None
    finally:
        gc.enable()


def is_(values: Any) -> None: ...


def f(values: Any) -> None: ...


def args(values: Any) -> None: ...


@pytest.mark.parametrize("check", [lambda values: None, is_, f, args], ids=lambda f: f.__name__)
def test_names_in_the_code(check: Any) -> None:
    """Functions may be called anything; among the names are those of a loop over many calls."""

    @op
    def checked(xp: Any, x: Any) -> Any:
        for _ in range(80):
            x = x * 1.01
        return x

    @checked.check
    def _(backend: Any, x: Any) -> Any:
        return check, x

    step = capture(lambda x: checked(x))
    for i in range(4):
        x = np.full(10_000, i / 7)  # read where it lies, by a line of its own
        assert np.array_equal(step(x), checked(x))
    assert "for f, args, attrs in calls" in step.plan().code


def test_spans_of_arrays_that_are_gone_are_not_taken_for_others() -> None:
    step, _ = results(lambda x: nnx.exp(x), np.ones(4), times=2)
    schedule = Schedule(step._latest.recording, set())  # type: ignore[union-attr]
    a = np.zeros(100)
    assert len({schedule._span(a[i:]) for i in range(100)}) == 100


def test_a_call_for_which_there_is_no_memory_has_done_nothing() -> None:
    """Also where it runs out after the optimizer's step, whose arrays it wrote."""

    def run(failing: bool) -> list[Any]:
        net = model(L.BatchNorm1d(8), L.Dropout(0.5))
        opt = optim.Adam(net.parameters(), lr=0.1)
        inner, fails = trainer(net, opt), [False, True, False, True] if failing else []

        def step(x: Any, t: Any) -> Any:
            loss = inner(x, t)
            if fails and fails.pop():
                raise MemoryError("none left")
            return loss

        captured, found = capture(step), []
        for x, t in batches(5):
            try:
                found.append(captured(x, t))
            except MemoryError:
                found.append(captured(x, t))
        state = [a for entry in opt.state_dict()["state"].values() for a in entry.values()]
        return [*map(float, found), *net.state_dict().values(), *state]

    assert equal(run(False), run(True))
