"""The files that `nnx.draw` writes: where things stand in an SVG, and what Graphviz is given."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx.draw.dot import dot

POSIX = pytest.mark.skipif(os.name == "nt", reason="the stand-in for dot is a script with #!")


@pytest.fixture(autouse=True)
def no_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with and without Graphviz; a test that wants a `dot` makes one."""
    monkeypatch.setenv("PATH", "")


def apples() -> tuple[nnx.Tensor, dict[str, nnx.Tensor]]:
    t = {
        name: nnx.Tensor(value, requires_grad=True)
        for name, value in (("apple", 100.0), ("number", 2.0), ("tax", 1.1))
    }
    return t["apple"] * t["number"] * t["tax"], t


def elements(svg: str, tag: str) -> list[Any]:
    return list(ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def words(svg: str) -> dict[str, tuple[float, float]]:
    found = {}
    for e in elements(svg, "text"):
        found[e.text or ""] = (float(e.get("x", "0")), float(e.get("y")))
    return found


def test_values_stand_above_the_arrows_and_gradients_below() -> None:
    price, t = apples()
    at = words(nnx.draw(price, names=t)._repr_svg_())
    pairs = {"100": "2.2", "2": "110", "1.1": "200", "220": "1"}
    for value, gradient in pairs.items():
        if value != "1.1":  # a value, and the gradient of another
            assert at[value][0] == at[gradient][0], value
            assert 20 < at[gradient][1] - at[value][1] < 40, value
    assert at["apple"][0] < at["100"][0] < at["200"][0] < at["220"][0] < at["v2"][0]


def test_no_two_words_meet_and_none_is_cut_off() -> None:
    """Also where arrows pass others by: each text, as wide as it can be, has its own place."""
    x = np.ones((3, 8), np.float32)
    inner = L.Sequential(L.Linear(8, 8), L.Tanh())
    model = L.Sequential(L.Linear(8, 8), L.Residual(inner), L.Residual(inner), L.Relu())
    svg = nnx.draw(model, x=x)._repr_svg_()
    root = ElementTree.fromstring(svg)
    left, top, width, height = map(float, root.get("viewBox", "").split())
    boxes = []
    for e in elements(svg, "text"):
        half, x0, y0 = 6.5 * len(e.text or "") / 2, float(e.get("x")), float(e.get("y"))
        boxes.append((x0 - half, y0 - 9, x0 + half, y0 + 2, e.text))
        assert left <= x0 - half and x0 + half <= left + width, e.text
        assert top <= y0 - 9 and y0 + 2 <= top + height, e.text
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_names_that_are_markup() -> None:
    x = nnx.Tensor(1.0, requires_grad=True)
    drawn = nnx.draw(x * 2, names={'<b>&"\x01': x})
    assert '<b>&"\ufffd' in words(drawn._repr_svg_())
    assert "&lt;b&gt;&amp;&quot;\ufffd" in dot(drawn.graph)


def test_files(tmp_path: Path) -> None:
    price, t = apples()
    drawn = nnx.draw(price, tmp_path / "a.svg", names=t)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == drawn._repr_svg_()
    nnx.draw(price, str(tmp_path / "a.txt"), names=t)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == f"{drawn}\n"
    drawn.save(tmp_path / "a.DOT")
    assert (tmp_path / "a.DOT").read_text(encoding="utf-8").startswith("digraph {")


def test_what_graphviz_is_given() -> None:
    """Each arrow is a node between two edges; value, line, gradient are rows of its label."""
    price, t = apples()
    text = dot(nnx.draw(price, names=t).graph)
    rows = re.findall(
        r"<TR><TD>([^<]*)</TD></TR><HR/><TR><TD><FONT[^>]*>\u2190 ([^<]*)</FONT>", text
    )
    assert rows == [("100", "2.2"), ("2", "110"), ("200", "1.1"), ("1.1", "200"), ("220", "1")]
    nodes, ends = (
        set(re.findall(r"^    (\w+) \[", text, re.M)),
        re.findall(r"(\w+)(?::\w)? ->", text),
    )
    assert {f"b{i}" for i in range(5)} | {f"l{i}" for i in range(5)} | {"end"} <= nodes
    assert set(ends) <= nodes and text.count("{") == text.count("}")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@POSIX
@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_graphviz_where_it_is_present(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "print(sys.argv[1:], sys.stdin.read()[:9])")
    nnx.draw(apples()[0], tmp_path / f"a.{kind}")
    assert (tmp_path / f"a.{kind}").read_text(encoding="utf-8") == f"['-T{kind}'] digraph {{\n"


@POSIX
def test_graphviz_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "sys.exit('no fonts')")
    drawn = nnx.draw(apples()[0])
    with pytest.raises(nnx.PackageError, match=r"dot failed \(1\): no fonts\. A path that ends in"):
        drawn.save(tmp_path / "a.png")
    drawn.save(tmp_path / "a.svg")
    assert elements((tmp_path / "a.svg").read_text(encoding="utf-8"), "circle")
    assert not (tmp_path / "a.png").exists()


@POSIX
def test_graphviz_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "")
    (tmp_path / "dot").write_text("#!/no/such/interpreter\n", encoding="utf-8")
    with pytest.raises(nnx.PackageError, match=r"dot cannot be run: "):
        nnx.draw(apples()[0], tmp_path / "a.png")


def test_a_png_without_graphviz(tmp_path: Path) -> None:
    with pytest.raises(nnx.PackageError, match=r"\.png needs Graphviz's program dot.*apt install"):
        nnx.draw(apples()[0], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    y = apples()[0]
    with pytest.raises(nnx.OptionError, match=r"ends in '\.gif', expected one of \.svg, \.png"):
        nnx.draw(y, tmp_path / "a.gif")
    with pytest.raises(nnx.OptionError, match="ends in 'nothing', expected one of"):
        nnx.draw(y, tmp_path / "graph")
    with pytest.raises(nnx.DataError, match="there is no folder"):
        nnx.draw(y, tmp_path / "missing" / "a.svg")


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    price, t = apples()
    nnx.draw(price, tmp_path / "a.png", names=t)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    found = words(nnx.draw(price, names=t)._repr_svg_())
    assert {"apple", "220", "\u2190 110"} <= set(found)
