"""The files of drawings: SVG of nnx's own, and what Graphviz's program is given and gives."""

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
from test_draw import apples

import nnx
from nnx import layers as L

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for files; no program can be found."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(folder: Path, body: str) -> None:
    """A stand-in for Graphviz's `dot`, in the folder where programs are looked for."""
    made = folder / "bin" / "dot"
    made.parent.mkdir(exist_ok=True)
    made.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    made.chmod(0o755)


def texts(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Where each text stands."""
    found: dict[str, list[tuple[float, float]]] = {}
    for e in ElementTree.parse(path).iter(f"{SVG}text"):
        found.setdefault(e.text or "", []).append((float(e.get("x", 0)), float(e.get("y", 0))))
    return found


def test_values_stand_above_their_gradients(bare: Path) -> None:
    price, names = apples()
    nnx.draw(price, bare / "price.svg", names={**names, "price": price})
    at = texts(bare / "price.svg")
    assert {"apple", "number", "tax", "price", "\u00d7"} <= set(at)
    for value, gradient in (("100", "2.2"), ("2", "110"), ("200", "1.1"), ("220", "1")):
        ((x, y),) = at[value][:1]
        assert any(gx == x and 20 < gy - y < 40 for gx, gy in at[gradient]), value
    assert at["apple"][0][0] < at["200"][0][0] < at["220"][0][0] < at["price"][0][0]


def test_the_figure_of_the_documents(bare: Path) -> None:
    price, names = apples()
    nnx.draw(price, bare / "price.svg", names={**names, "price": price})
    shown = Path(__file__).parent.parent / "docs" / "figures" / "price.svg"
    assert shown.read_text(encoding="utf-8") == (bare / "price.svg").read_text(encoding="utf-8")


def boxes_of(path: Path) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of all boxes and words, the words a little smaller than they are."""
    found = []
    for e in ElementTree.parse(path).iter():
        n = {k: float(v) for k, v in e.attrib.items() if re.fullmatch(r"-?[\d.]+", v)}
        if e.tag == f"{SVG}circle":
            found.append((n["cx"] - n["r"], n["cy"] - n["r"], n["cx"] + n["r"], n["cy"] + n["r"]))
        elif e.tag == f"{SVG}rect" and "rx" in n:
            found.append((n["x"], n["y"], n["x"] + n["width"], n["y"] + n["height"]))
        elif e.tag == f"{SVG}text" and e.get("font-size") is None and "x" in n:
            half = 3 * len(e.text or "")
            found.append((n["x"] - half, n["y"] - 9, n["x"] + half, n["y"] + 2))
    return found


def residual() -> Any:
    net = L.Sequential(L.Residual(L.Sequential(L.Linear(4, 4), L.Relu())), L.Linear(4, 2))
    return net(nnx.Tensor(np.ones((3, 4), "float32")))


def recurrent() -> Any:
    W = nnx.Tensor(np.eye(3), requires_grad=True)
    h = nnx.Tensor(np.ones((1, 3)))
    for _ in range(6):
        h = nnx.tanh(h @ W + 1.0)
    return h.sum()


@pytest.mark.parametrize("what", [residual, recurrent, lambda: apples()[0]])
def test_nothing_overlaps(bare: Path, what: Any) -> None:
    nnx.draw(what(), bare / "graph.svg")
    found = boxes_of(bare / "graph.svg")
    width, height = (float(ElementTree.parse(bare / "graph.svg").getroot().get(k, 0))
                     for k in ("width", "height"))  # fmt: skip
    assert len(found) > 8
    for i, (a, b, c, d) in enumerate(found):
        assert -12 <= a < c <= width - 12 and -12 <= b < d <= height - 12
        for e, f, g, h in found[:i]:
            apart = c <= e or g <= a or d <= f or h <= b
            inside = (e <= a and c <= g) or (a <= e and g <= c)
            assert apart or inside, ((a, b, c, d), (e, f, g, h))


def test_a_long_chain_is_drawn_in_time(bare: Path) -> None:
    x = nnx.Tensor(1.0, requires_grad=True)
    for _ in range(400):
        x = x * 1.0
    nnx.draw(x, bare / "chain.svg", limit=400)
    assert len(texts(bare / "chain.svg")["\u00d7"]) == 400


def test_words_that_xml_must_escape(bare: Path) -> None:
    x = nnx.Tensor(2.0, requires_grad=True)
    nnx.draw(x * 3.0, bare / "a.svg", names={"<&\x00\uac12>": x})
    assert "<&\ufffd\uac12>" in texts(bare / "a.svg")
    nnx.draw(x * 3.0, bare / "a.dot", names={"<&\x00\uac12>": x})
    assert "&lt;&amp;\ufffd\uac12&gt;" in (bare / "a.dot").read_text(encoding="utf-8")


def test_text_and_dot(bare: Path) -> None:
    price, names = apples()
    drawn = nnx.draw(price, bare / "a.txt", names=names)
    assert (bare / "a.txt").read_text() == f"{drawn}\n" and repr(drawn) == str(drawn)
    drawn.save(bare / "a.dot")
    dot = (bare / "a.dot").read_text(encoding="utf-8")
    assert dot.startswith("digraph {") and dot.count("->") == 2 * 5
    assert dot.count("{") == dot.count("}") and ">100</TD>" in dot and "\u2190 2.2<" in dot


def test_a_picture_in_a_notebook(bare: Path) -> None:
    drawn = nnx.draw(apples()[0])
    assert ElementTree.fromstring(drawn._repr_svg_()).tag == f"{SVG}svg"


def test_png_without_graphviz(bare: Path) -> None:
    with pytest.raises(nnx.PackageError) as error:
        nnx.draw(apples()[0], bare / "a.png")
    assert str(error.value) == (
        "draw: .png needs Graphviz's program dot, which is not installed: `apt install graphviz`, "
        "`brew install graphviz`, or from graphviz.org. A path that ends in .svg or .txt needs no "
        "Graphviz."
    )
    assert not (bare / "a.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_graphviz_is_used_where_it_is(bare: Path) -> None:
    program(bare, "print(sys.argv[1:], sys.stdin.read()[:9])")
    drawn = nnx.draw(apples()[0], bare / "a.png")
    assert (bare / "a.png").read_text() == "['-Tpng'] digraph {\n"
    drawn.save(bare / "a.svg")
    assert (bare / "a.svg").read_text() == "['-Tsvg'] digraph {\n"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_graphviz_fails(bare: Path) -> None:
    program(bare, "sys.exit('a bad\\nfont')")
    drawn = nnx.draw(apples()[0], bare / "a.svg")
    assert len(texts(bare / "a.svg")) > 8, "nnx's own"
    with pytest.raises(nnx.PackageError, match=r"dot failed \(1\): a bad font\. A path that ends"):
        drawn.save(bare / "a.pdf")
    (bare / "bin" / "dot").write_text("#!/nowhere/at/all\n")
    with pytest.raises(nnx.PackageError, match=r"dot cannot be run: .*\. A path that ends in"):
        drawn.save(bare / "a.pdf")


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_itself(tmp_path: Path) -> None:
    price, names = apples()
    drawn = nnx.draw(price, tmp_path / "a.png", names=names)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    drawn.save(tmp_path / "a.svg")
    assert {"apple", "220", "\u2190 110"} <= set(texts(tmp_path / "a.svg"))


def test_a_file_that_cannot_be_written(bare: Path) -> None:
    with pytest.raises(nnx.DataError, match=r"cannot write .*there is no folder .*make it"):
        nnx.draw(apples()[0], bare / "missing" / "a.svg")
