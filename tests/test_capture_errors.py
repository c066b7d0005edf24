"""What cannot be replayed is an error that names the line."""

from __future__ import annotations

import numpy as np
import pytest
from capture_tools import batches, equal, model, trainer, values

import nnx
from nnx import optim
from nnx.backend import Backend
from nnx.capture import capture
from nnx.op import op

HERE = __file__
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def failing(f, *args, calls=2, **options):
    """The message of the error that f raises within some calls; then nothing is left of it."""
    step = capture(f, **options)

    def run():
        for _ in range(calls):
            step(*args)

    with pytest.raises(nnx.CaptureError) as error:
        run()
    assert "0 plans" in repr(step)
    assert nnx.backend.recording() is None
    return str(error.value)


@pytest.mark.parametrize(
    "read",
    [
        float, int, bool, lambda t: t.item(), lambda t: t.numpy(), nnx.to_numpy,
        lambda t: nnx.to_numpy(t.data), lambda t: 1 if t > 0 else 0, repr,
    ],
)  # fmt: skip
def test_reading_a_value(read):
    def f(x):
        total = nnx.sum(nnx.Tensor(x))
        read(total)  # the line
        return total

    message = failing(f, X)
    assert "reads the values of an array of shape () on the host" in message
    assert f"{HERE}:" in message
    assert "return the array from the captured function and read it outside" in message


def test_the_line_is_the_users():
    def f(x):
        loss = nnx.sum(nnx.Tensor(x))
        return loss * float(loss)  # the line to be named

    message = failing(f, X)
    assert "`return loss * float(loss)  # the line to be named`" in message


def test_a_mask_from_the_host():
    def f(x):
        mask = (np.random.default_rng().random(3) < 0.5).astype(np.float32)
        return nnx.Tensor(x) * mask  # the mask

    message = failing(f, X)
    assert f"{HERE}:" in message and "# the mask`" in message
    assert "an array of shape (3,) is given to 'mul' that was made outside nnx's" in message
    assert "Give it as an argument, or compute it by nnx's functions" in message


def test_arithmetic_on_bare_arrays():
    def f(x):
        x = x / 255
        return nnx.relu(nnx.Tensor(x))  # used here

    message = failing(f, X)
    assert "# used here`" in message and "made outside nnx's functions" in message


def test_a_result_of_bare_arithmetic():
    message = failing(lambda x: nnx.relu(x) * 2, X)
    assert "an array of shape (2, 3) was returned that was made outside nnx's functions" in message


def test_a_result_that_has_the_id_of_the_one_before():
    seen = []

    def f(x):
        made = [nnx.relu(x) * 2 for _ in range(10_000)]
        found = next((y for y in made if id(y) in seen), made[0])
        seen.append(id(found))
        return found

    assert "made outside nnx's functions" in failing(f, X)


def test_a_python_number_that_changes():
    count = [0]

    def f(x):
        count[0] += 1
        return nnx.Tensor(x) * (0.5 / count[0])  # the number

    message = failing(f, X)
    assert "'mul' is given the Python value 0.5 in one call and 0.25 in the next" in message
    assert "# the number`" in message


def test_numbers_in_lists_that_change():
    count = [0.0]

    def f(x):
        count[0] += 1
        return nnx.Tensor(x) * nnx.Tensor([1.0, 2.0, count[0]])

    assert "'literal' is given the Python value" in failing(f, X)


def test_numbers_in_lists_that_stay_are_kept():
    step = capture(lambda x: nnx.Tensor(x) * nnx.Tensor([1.0, 2.0, 3.0]))
    for _ in range(4):
        assert np.array_equal(step(X).data, X * np.float32([1, 2, 3]))


def test_another_path():
    count = [0]

    def f(x):
        count[0] += 1
        if count[0] > 1:
            return nnx.tanh(x)  # the other path
        return nnx.exp(x)

    message = failing(f, X)
    assert "# the other path`: this call of the captured function came to 'tanh'" in message
    assert "came to 'exp' (" in message and "return nnx.exp(x)`" in message


def test_a_shape_that_changes():
    count = [0]

    def f(x):
        count[0] += 1
        return nnx.sum(nnx.reshape(nnx.Tensor(x), ((2, 3), (3, 2))[count[0] % 2]) * 2.0, axis=0)

    assert "'mul' met shape (3, 2) float32 in one call and (2, 3)" in failing(f, X)


@pytest.mark.parametrize("where", ["result", "parameter", "gradient"])
def test_changes_in_place(where):
    net = model(n_in=3)

    def f(x):
        y = nnx.relu(nnx.Tensor(x))
        if where == "result":
            y.data[...] *= 2
        loss = nnx.sum(net(y))
        net.zero_grad()
        loss.backward()
        if where == "gradient":
            net[0].W.grad *= 0.5
        if where == "parameter":
            net[0].W.data -= 0.1 * net[0].W.grad
        return loss

    message = failing(f, X)
    assert "was changed in place outside nnx" in message and f"{HERE}:" in message


def test_state_that_is_carried_from_call_to_call():
    carried = [nnx.Tensor(X)]

    def f(x):
        carried[0] = nnx.tanh(carried[0] + x)  # the state
        return carried[0]

    assert "# the state`: an array of shape (2, 3) is given to 'add'" in failing(f, X, calls=3)


def test_an_argument_cannot_be_changed_in_place():
    def f(x):
        x /= 255
        return nnx.relu(x)

    with pytest.raises(ValueError, match="read-only"):
        capture(f)(X)


def test_a_gradient_that_was_assigned():
    net = model(n_in=3)

    def f(x):
        nnx.sum(net(nnx.Tensor(x))).backward()
        for p in net.parameters():
            p.grad = np.sign(p.grad)

    assert "left a gradient of shape (3, 8) that nnx did not compute in it" in failing(f, X)


def test_kernels_that_cannot_be_recorded():
    @op
    def by_numpy(xp, x):
        return np.exp(x)

    @op
    def by_method(xp, x):
        return x.sum()

    @op
    def by_value(xp, x):
        return x if x[0, 0] > 0 else -x

    assert "hands its arrays to something else than its xp" in failing(by_numpy, X)
    assert "a kernel asked an array for .sum while it was recorded" in failing(by_method, X)
    assert "a kernel read an array's values" in failing(by_value, X)


def test_arguments_and_results():
    assert "argument 0 is a object; the captured function takes" in failing(lambda x: x, object())
    assert "what f returned is a set" in failing(_named_f, X)
    learned = nnx.Tensor([1.0], requires_grad=True)
    assert "is a Tensor that requires a gradient" in failing(lambda x: x, learned)


def _named_f(x):
    return {1}


_named_f.__name__ = "f"


def test_options():
    with pytest.raises(nnx.OptionError, match="got a int, expected a function or a layer"):
        capture(3)  # type: ignore[arg-type]
    with pytest.raises(nnx.OptionError, match="max_plans=0, expected an int of at least 1"):
        capture(nnx.relu, max_plans=0)
    with pytest.raises(nnx.StateError, match=r"plan\(\) before there is one"):
        capture(nnx.relu).plan()


def test_backends_without_replay_and_other_backends(monkeypatch):
    class Bare(Backend):
        name = "bare"

        def owns(self, array):
            return isinstance(array, str)

    monkeypatch.setitem(nnx.backend._loaded, "bare", Bare())

    def f():
        with nnx.use_backend("bare"):
            return None

    message = failing(f)
    assert "uses the backend 'bare' while a function on 'numpy' is recorded" in message
    with (
        nnx.use_backend("bare"),
        pytest.raises(nnx.CaptureError, match="the backend 'bare' has no replay"),
    ):
        capture(f)()


def test_an_error_inside_leaves_nothing_behind():
    net, fail = model(), [True]
    step = trainer(net, optim.SGD(net.parameters(), lr=0.1))

    def f(x, t):
        loss = step(x, t)
        if fail[0]:
            raise KeyError("mine")
        return loss

    captured, data = capture(f), batches(6)
    for k in range(2):
        with pytest.raises(KeyError, match="mine"):
            captured(*data[k])
        assert nnx.backend.recording() is None and not captured._pending
    fail[0] = False
    for x, t in data[2:]:
        captured(x, t)
    eager = model()
    step = trainer(eager, optim.SGD(eager.parameters(), lr=0.1))
    for x, t in data:
        step(x, t)
    assert equal(values(net), values(eager)) and "1 plan" in repr(captured)
