"""The reference: a page for each module, from `__all__`, signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_origin

from nnx.op import Op

MODULES = {
    "nnx": "Arrays, Tensors, backends, replay",
    "nnx.ops": "Ops",
    "nnx.layers": "Layers",
    "nnx.init": "Initial weights",
    "nnx.optim": "Optimizers",
    "nnx.optim.schedules": "Schedules of learning rates",
    "nnx.data": "Data",
    "nnx.data.transforms": "Transforms of images",
    "nnx.train": "Training",
    "nnx.metrics": "Metrics",
    "nnx.plot": "Pictures of training",
    "nnx.errors": "Errors",
    "nnx.override": "Kernels of a backend",
}
SPECIAL = ("__call__", "__getitem__", "__iter__", "__len__")


def pages() -> dict[str, str]:
    """File names and texts."""
    found = {f"{name}.md": page(name, title) for name, title in MODULES.items()}
    listing = "\n".join(f"{name}" for name in MODULES)
    found["api.md"] = (
        "# Reference\n\nMade from the docstrings of what each module exports.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```\n"
    )
    return found


def page(name: str, title: str) -> str:
    module = importlib.import_module(name)
    parts = [f"# {title}\n\n`{name}`\n\n{prose(module.__doc__)}"]
    for item in exported(module):
        value = getattr(module, item)
        if inspect.ismodule(value) or item.startswith("__") or get_origin(value) is not None:
            continue  # the last one is the name of a type
        if name == "nnx" and isinstance(value, Op):
            continue  # on the page of the ops
        parts.append(entry(item, value))
    return "\n\n".join(parts) + "\n"


def exported(module: Any) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            n for n, v in vars(module).items()
            if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
        ]  # fmt: skip
    return sorted(names, key=str.lower)


def entry(name: str, value: Any) -> str:
    parts = [f"## {name}", f"```python\n{head(name, value)}\n```", prose(inspect.getdoc(value))]
    if isinstance(value, Op):
        parts.append(derivatives(value))
    if inspect.isclass(value) and not issubclass(value, BaseException):
        parts += [member(f"{name}.{n}", v) for n, v in members(value)]
    return "\n\n".join(filter(None, parts))


def head(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value.forward if isinstance(value, Op) else value)
    except (TypeError, ValueError):
        return name
    if isinstance(value, Op):  # its first parameter is the namespace
        signature = signature.replace(parameters=[*signature.parameters.values()][1:])
    text = re.sub(r"<(?:function|class) '?([\w.]+)'?[^>]*>", r"\1", str(signature))
    return name + re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def derivatives(op: Op[...]) -> str:
    by = [f"`{a}`" for d in op.derivatives for a in d.arguments]
    return "Derivatives by " + ", ".join(by) + "." if by else "No derivatives."


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself documents."""
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        if (callable(value) or isinstance(value, property)) and getattr(value, "__doc__", None):
            yield name, value


def member(name: str, value: Any) -> str:
    shown = name if isinstance(value, property) else head(name, value)
    return f"### {name}\n\n```python\n{shown}\n```\n\n{prose(inspect.getdoc(value))}"


def prose(text: str | None) -> str:
    """A docstring as Markdown: what is laid out in columns or indented stays as it is."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    return "\n\n".join(laid_out(p) if is_laid_out(p) else plain(p) for p in parts if p.strip())


def is_laid_out(paragraph: str) -> bool:
    lines = paragraph.splitlines()
    return any(re.search(r"[^.\s] {2,}\S", line) or line.startswith("    ") for line in lines)


def laid_out(paragraph: str) -> str:
    return f"```text\n{paragraph}\n```"


def plain(paragraph: str) -> str:
    """Markdown's own characters are escaped outside of `code`."""
    pieces = re.split(r"(`[^`]+`)", paragraph)
    return "".join(
        p if p.startswith("`") else re.sub(r"([*_<>\[\]\\#|^$~{}])", r"\\\1", p) for p in pieces
    )
