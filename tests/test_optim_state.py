"""An optimizer's state_dict and load_state_dict."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from nnx import optim
from nnx.errors import StateError
from nnx.tensor import Parameter

MAKERS = {
    "sgd": lambda ps: optim.SGD(ps, 0.1),
    "momentum": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, dampening=0.5),
    "adagrad": lambda ps: optim.AdaGrad(ps, lr_decay=0.1),
    "rmsprop": lambda ps: optim.RMSProp(ps, centered=True, momentum=0.9),
    "adam": lambda ps: optim.Adam(ps),
    "adamw": lambda ps: optim.AdamW([{"params": ps[:1], "lr": 0.1}, {"params": ps[1:]}]),
}


def parameters(dtype="float32"):
    rng = np.random.default_rng(0)
    return [Parameter(rng.standard_normal(s).astype(dtype)) for s in ((3, 2), (2,))]


def train(opt, params, steps):
    for step in steps:
        rng = np.random.default_rng(step)
        for p in params:
            p.grad = rng.standard_normal(p.shape).astype(p.dtype)
        opt.step()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_resumed_run_equals_an_uninterrupted_one(make):
    whole = parameters()
    train(make(whole), whole, range(8))

    first = parameters()
    opt = make(first)
    train(opt, first, range(4))
    opt.param_groups[0]["lr"] = opt.param_groups[0]["lr"] * 1.0
    saved = opt.state_dict()
    values = [p.data.copy() for p in first]
    train(opt, first, range(4, 6))  # what is saved is a copy

    second = [Parameter(v) for v in values]
    resumed = make(second)
    train(resumed, parameters(), ())
    resumed.load_state_dict(saved)
    train(resumed, second, range(4, 8))
    for p, q in zip(whole, second, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_what_state_dict_holds():
    params = parameters()
    opt = optim.Adam(params, lr=np.float32(0.5))
    train(opt, params[:1], range(2))
    params[1].grad = None
    saved = opt.state_dict()
    assert saved["optimizer"] == "Adam"
    group = {"params": [0, 1], "lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    assert saved["param_groups"] == [group]
    json.dumps(saved["param_groups"])
    assert list(saved["state"]) == [0]
    assert saved["state"][0]["step"] == 2 and set(saved["state"][0]) == {"step", "m", "v"}
    assert saved["state"][0]["m"].dtype == np.float32


def test_loading_copies_and_takes_the_parameters_dtype():
    params = parameters()
    opt = optim.Adam(params)
    train(opt, params, range(2))
    saved = opt.state_dict()
    kept = saved["state"][0]["m"].copy()
    double = parameters("float64")
    other = optim.Adam(double, lr=7.0)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 1e-3
    same = parameters()
    opt = optim.Adam(same)
    opt.load_state_dict(saved)
    train(opt, same, range(2))
    train(other, double, range(2))
    assert other.state_dict()["state"][0]["m"].dtype == np.float64
    np.testing.assert_array_equal(saved["state"][0]["m"], kept)


def test_a_deep_copy_of_parameters_and_optimizer_trains_alike():
    params = parameters()
    opt = optim.Adam(params)
    train(opt, params, range(3))
    params2, opt2 = copy.deepcopy((params, opt))
    train(opt, params, range(3, 5))
    train(opt2, params2, range(3, 5))
    np.testing.assert_array_equal(params[0].data, params2[0].data)


def _edited(edit):
    params = parameters()
    opt = optim.Adam(params)
    train(opt, params, range(2))
    saved = opt.state_dict()
    edit(saved)
    return saved


def _misshape(saved):
    saved["state"][0]["m"] = np.zeros(5, "f4")
    saved["state"][1]["v"] = np.zeros(2, "i8")


def _several(saved):
    _misshape(saved)
    saved["param_groups"][0]["lr"] = -1.0
    saved["state"][7] = {}


EDITS = {
    "optimizer": (lambda s: s.update(optimizer="SGD"), ["it is the state of SGD"]),
    "form": (lambda s: s.pop("state"), ["not what state_dict\\(\\) gives"]),
    "entry": (lambda s: s["state"].update({0: 3}), ["parameter 0: its state is a int"]),
    "groups": (lambda s: s["param_groups"].append({}), ["2 parameter groups, the optimizer 1"]),
    "indices": (
        lambda s: s["param_groups"][0].update(params=[0]),
        [r"group 0 has the parameters \[0\], expected \[0, 1\]"],
    ),
    "unknown": (lambda s: s["param_groups"][0].update(rho=1), ["unknown option 'rho'"]),
    "missing": (lambda s: s["param_groups"][0].pop("eps"), ["group 0 lacks eps"]),
    "names": (
        lambda s: s["state"][1].pop("m"),
        [r"parameter 1 has the state \['v'\], expected \['m', 'v'\]"],
    ),
    "step": (lambda s: s["state"][1].update(step=0), ["step is 0, expected an int >= 1"]),
    "arrays": (
        _misshape,
        [r"parameter 0: m has shape \(5,\), the parameter \(3, 2\)", "parameter 1: v is int64"],
    ),
    "several": (
        _several,
        ["group 0: lr=-1.0, expected", "m has shape", "v is int64", "state for parameter 7"],
    ),
}


@pytest.mark.parametrize(("edit", "messages"), EDITS.values(), ids=EDITS)
def test_what_does_not_fit_is_reported_together_and_changes_nothing(edit, messages):
    params = parameters()
    opt = optim.Adam(params, lr=0.5)
    train(opt, params, range(1))
    before = opt.state_dict()
    saved = _edited(edit)
    with pytest.raises(StateError, match="nothing was loaded") as caught:
        opt.load_state_dict(saved)
    for message in messages:
        assert caught.match(message)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, entry in before["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(after["state"][i][name], value)
