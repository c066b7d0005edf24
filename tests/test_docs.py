"""The pages that are made from the code: complete, and right about what can be told otherwise."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx import layers, optim
from nnx.op import REGISTRY

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))

from pages import api, capabilities


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return api.pages()


def test_the_reference_has_what_is_exported(reference: dict[str, str]) -> None:
    for module, names in ((layers, layers.__all__), (optim, optim.__all__), (nnx, nnx.__all__)):
        text = reference[f"{module.__name__}.md"] + reference["nnx.ops.md"]
        for name in names:
            if not name.startswith("__") and not inspect.ismodule(getattr(module, name)):
                assert f"\n## {name}\n" in text, f"{module.__name__}.{name}"


def test_everything_in_the_reference_is_described(reference: dict[str, str]) -> None:
    bare = [
        f"{file}: {m[1]}" for file, text in reference.items()
        for m in re.finditer(r"^##+ (.+)\n\n```python\n[^`]*```\n(?=\n##|\n*\Z)", text, re.M)
    ]  # fmt: skip
    assert bare == []


def test_layers_say_what_they_compute_of_which_shapes() -> None:
    shapes = re.compile(r"\([^()]*\b(N|L|C|dim|length|in|shape)\b[^()]*\)|any shape|of one shape")
    for name in set(layers.__all__) - {"Layer", "Sequential", "Loss", "AddNode", "MulNode"}:
        text = inspect.getdoc(getattr(layers, name)) or ""
        assert re.search(r" = |->", text), f"{name}: no formula"
        assert shapes.search(text), f"{name}: no shapes"


def test_signatures(reference: dict[str, str]) -> None:
    assert "\nrelu(x)\n" in reference["nnx.ops.md"]
    assert "\nsoftmax(x, *, axis=-1)\n" in reference["nnx.ops.md"]
    assert "W_init: init.Initializer = he_normal" in reference["nnx.layers.md"]
    assert "Derivatives by `x`, `W`, `b`." in reference["nnx.ops.md"]


def test_formulas_stay_as_they_are_and_prose_flows() -> None:
    shown = api.prose("One *star* and `a * b`.\n\n    y = x * 2\n\nx   (N, C)\nlonger   (N,)")
    assert shown == (
        "One \\*star\\* and `a * b`.\n\n```text\n    y = x * 2\n```\n\n"
        "```text\nx   (N, C)\nlonger   (N,)\n```"
    )


def rows() -> dict[str, list[str]]:
    found = {}
    for line in capabilities.page().partition("## Fused")[0].splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells[1:]
    return found


def test_what_each_op_can_do() -> None:
    table = rows()
    assert set(table) == {op.name for op in REGISTRY.values() if op.name in vars(nnx)}
    numpy, _, cupy, derivatives, higher = table["affine"]
    assert (numpy, derivatives, higher) == ("own + derivatives; 16 32 64", "x, W, b", "yes")
    assert table["exp"][0] == "portable; 16 32 64" and table["exp"][2].startswith("portable")
    assert cupy.startswith("own + derivatives")
    assert table["erf"][2].startswith("own")
    assert all(cells[-1] == "yes" for cells in table.values() if cells[-2] != "none")


def test_an_op_that_has_no_second_derivative_is_told() -> None:
    from makers import Case, normal

    @nnx.op.op
    def doubled(xp, x):  # type: ignore[no-untyped-def]
        return x * 2

    try:
        case = Case((normal(3),), {})
        case.op, case.id = doubled, "doubled"
        assert capabilities._higher(doubled, [case]) == "-"
        assert capabilities._widths(doubled, case) == "16 32 64"

        @doubled.check
        def _(backend: object, x: object) -> None:
            if isinstance(x, np.ndarray) and x.dtype == np.float16:
                raise nnx.DtypeError("doubled: not in float16")

        assert capabilities._widths(doubled, case) == "32 64"
    finally:
        del REGISTRY[next(k for k, v in REGISTRY.items() if v is doubled)]
