"""The documents: their code runs, their commands and links exist, their tables name real things."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import backend as backend_module
from nnx import bench
from nnx.cli import options
from nnx.op import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "backends/*.md", "benchmarks/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if not {"_build", "generated"} & set(path.parts)
)
GENERATED = ("api.md", "capabilities.md")  # when the site is built: see docs/conf.py
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)
COMMAND = re.compile(r"(?:^|[\s/\\`])nnx +(train|eval|predict|generate|info|bench)\b([^`&#\n]*)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[tuple[str, str]]:
    found = [(m[2], textwrap.dedent(m[3])) for m in BLOCK.finditer(read(name))]
    return [b for b in found if b[0] in languages]


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files go to a folder of the test's own; ops that the documents define are forgotten."""
    monkeypatch.chdir(tmp_path)
    ops = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(ops)


def run(name: str, namespace: dict[str, Any]) -> None:
    """All Python blocks in order, in one namespace; sessions must print what they show."""
    for language, code in blocks(name, "python", "pycon"):
        if language == "python":
            exec(compile(code, name, "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(code, namespace, name, None, None)
        report: list[str] = []
        doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
        assert not report, "".join(report)
        namespace.update(test.globs)


@pytest.mark.usefixtures("apart")
def test_readme_code(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    run("README.md", namespace)
    assert namespace["price"] == 220.00000000000003
    assert (namespace["dapple_price"], namespace["dtax"]) == (1.1, 200)
    assert Path("net.safetensors").exists()
    printed = capsys.readouterr().out
    assert "sat on the mat" in printed and "(3, 5, 32)\n(3, 5, 8)\n" in printed
    assert "7,510 parameters" in printed and "[1. 4. 9.]\n2\n" in printed
    (listing,) = [code for _, code in blocks("README.md", "text") if code.startswith("def replay")]
    assert listing in printed
    if shutil.which("dot") is None:  # with Graphviz the picture is another
        assert Path("price.svg").read_text(encoding="utf-8") == read("docs/figures/price.svg")


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", *(n for n in DOCUMENTS if n.startswith("docs/"))]
)
def test_code_of_the_other_documents(name: str) -> None:
    namespace = {"__name__": "document", "op": nnx.op.op}
    assert blocks(name, "python", "pycon")
    run(name, namespace)
    x = np.array([2.0, 3.0])
    for function in ("square", "cube"):
        if function in namespace:
            power = {"square": 2, "cube": 3}[function]
            leaf = nnx.Tensor(x, requires_grad=True)
            namespace[function](leaf).sum().backward()
            np.testing.assert_allclose(leaf.grad, power * x ** (power - 1))


def commands() -> list[tuple[str, str, str]]:
    return [
        (name, m[1], m[2].strip().strip(".;:)")) for name in DOCUMENTS
        for m in COMMAND.finditer(read(name))
    ]  # fmt: skip


def test_commands_exist() -> None:
    """Each `nnx ...` is parsed by the command's own parser."""
    names = ("train", "eval", "predict", "generate", "info")
    assert {c for _, c, _ in commands()} == {*names, "bench"}
    parsers = dict.fromkeys(names, options.parser())
    parsers["bench"] = bench._parser()
    for name, command, rest in commands():
        of_a_run = command in ("eval", "predict", "generate")
        if of_a_run and not rest.strip():
            continue  # prose: "`nnx predict` reads"
        if not of_a_run and not rest.startswith("-"):
            rest = ""
        argv = shlex.split(rest.partition("|")[0])
        try:
            parsers[command].parse_args(argv if command == "bench" else [command, *argv])
        except SystemExit as error:
            assert error.code == 0, f"{name}: nnx {command} {rest}"


def test_extras_and_paths_of_the_commands_exist() -> None:
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    for name in DOCUMENTS:
        text = "\n".join(code for _, code in blocks(name, "sh", "bat", "text"))
        for group in re.findall(r"\.\[([\w,]+)\]", text):
            assert set(group.split(",")) <= set(extras), f"{name}: {group}"
        for path in re.findall(r"\b(?:nnx|tests|examples|benchmarks)/[\w./]+\.py", read(name)):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_the_two_commands_come_first() -> None:
    first = blocks("README.md", "sh")[0][1].splitlines()
    assert first == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/nnx train",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        if not re.match(r"https?:", target):
            path = (ROOT / name).parent / target.partition("#")[0]
            made = path.parent.name == "generated" and path.name in GENERATED
            assert made or path.exists(), f"{name} links to {target}"


def _links(text: str) -> list[str]:
    return sorted(set(re.findall(r"\]\(([^)\s#]+)", text)))


def test_the_korean_readme_keeps_step() -> None:
    """The same sections, code, names and links in the same order; only the prose is another."""
    english, korean = read("README.md"), read("README.ko.md")
    english = re.sub(r"(?s)<!-- (bench|gpu|papers):start -->.*?<!-- \1:end -->", "", english)
    assert BLOCK.findall(korean) == BLOCK.findall(english)
    levels = [
        [len(m) for m in re.findall(r"^(#+) ", BLOCK.sub("", t), re.M)] for t in (english, korean)
    ]
    assert levels[0] == levels[1]
    names = [re.findall(r"^\|(.*?)\|$", t, re.M) for t in (english, korean)]
    assert [re.findall("`[^`]+`", row) for row in names[0]] == [
        re.findall("`[^`]+`", row) for row in names[1]
    ]
    bullets = [len(re.findall(r"^- ", t, re.M)) for t in (english, korean)]
    assert bullets[0] == bullets[1]
    chart = next(link for link in _links(korean) if re.match("benchmarks/results/.*png", link))
    assert _links(korean) == sorted({*_links(english), "README.md", chart} - {"README.ko.md"})


def test_nothing_says_that_it_is_published() -> None:
    files = [ROOT / name for name in DOCUMENTS] + list((ROOT / "nnx").rglob("*.py"))
    files += [*(ROOT / "examples").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    for path in files:
        found = re.search(r"(pip install|uv add)\s+['\"]?nnx", path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found}"


def test_markers_that_others_fill() -> None:
    text = read("README.md")
    assert [text.count(f"<!-- bench:{end} -->") for end in ("start", "end")] == [1, 1]
    tables = [m.start() for m in re.finditer(r"^\|[-|]+\|$", text, re.M)]
    assert all(t > text.index("<!-- bench:start -->") for t in tables), "the benchmarks come first"


def _name_rows() -> list[list[str]]:
    section = read("README.md").partition("## Names")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_names_of_nnx_exist() -> None:
    modules = {"nnx": nnx, "L": nnx.layers, "optim": nnx.optim}
    names = re.findall(r"\b(nnx|L|optim)\.(\w+)", " ".join(row[2] for row in _name_rows()))
    assert len(names) > 12
    assert [n for m, n in names if not hasattr(modules[m], n)] == []


def test_names_of_torch_exist() -> None:
    torch = pytest.importorskip("torch")
    modules = {"torch": torch, "nn": torch.nn, "optim": torch.optim}
    names = re.findall(r"\b(torch|nn|optim)\.(\w+)", " ".join(row[3] for row in _name_rows()))
    assert len(names) > 6
    assert [n for m, n in names if not hasattr(modules[m], n)] == []


class OnGpu:
    """Stands for an array on a GPU."""

    dtype, ndim = np.dtype("float32"), 2

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


class CupyStandIn(nnx.Backend):
    name = "cupy"

    def owns(self, array: object) -> bool:
        return isinstance(array, OnGpu)


def test_the_error_of_mixed_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backend_module._loaded, "cupy", CupyStandIn())
    with pytest.raises(nnx.MixedBackendsError) as error:
        nnx.layers.SoftmaxCrossEntropy().forward(OnGpu((2, 10)), np.array([0, 1]))
    shown = [code for _, code in blocks("README.md", "text") if "MixedBackendsError" in code]
    assert [" ".join(code.split()) for code in shown] == [
        f"nnx.errors.MixedBackendsError: {error.value}"
    ]


def test_the_tree_of_errors() -> None:
    tree = blocks("docs/errors.md", "text")[0][1]
    indented = [line[4:] for line in (nnx.errors.__doc__ or "").splitlines() if line[:4] == "    "]
    assert tree.splitlines() == indented
    for name in nnx.errors.__all__:
        cls = getattr(nnx, name)
        assert issubclass(cls, nnx.NnxError) and f"{name} " in tree.replace("\n", " ")
        for builtin in (ValueError, TypeError, RuntimeError, ImportError):
            line = next(x for x in indented if re.search(rf"\b{name}\b", x))
            assert (f" {builtin.__name__})" in line) == issubclass(cls, builtin), line
        if not cls.__subclasses__():
            assert f"| `{name}` |" in read("docs/errors.md")


def test_the_docs_own_words() -> None:
    """Plain characters, so that a console of any encoding shows the documents."""
    for name in set(DOCUMENTS) - {"README.ko.md"}:
        text = re.sub("[├│└─]", "", read(name))
        assert text.isascii(), f"{name}: {sorted({c for c in text if not c.isascii()})}"
