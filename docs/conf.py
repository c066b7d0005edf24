"""Sphinx's settings: `python -m sphinx -W docs docs/_build` makes the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from pages import api, capabilities  # noqa: E402

import nnx  # noqa: E402

project, author, version, release = "nnx", "The nnx authors", nnx.__version__, nnx.__version__
extensions = ["myst_parser"]
html_theme, html_title = "furo", f"nnx {nnx.__version__}"
html_show_copyright = html_show_sourcelink = False
exclude_patterns = ["_build", "pages"]
myst_heading_anchors = 3
pygments_dark_style = "monokai"


def setup(app: Any) -> None:
    app.connect("builder-inited", lambda _: write())
    app.connect("source-read", lambda _, name, text: text.insert(0, within(name, text.pop())))
    app.connect(
        "include-read", lambda _, path, name, text: text.insert(0, within(name, text.pop()))
    )


def within(page: str, text: str) -> str:
    """Links to files of the repository that are no pages become what they say."""

    def kept(link: re.Match[str]) -> str:
        target = (HERE / page).parent / link[2].partition("#")[0]
        inside = target.exists() and target.resolve().is_relative_to(HERE)
        return link[0] if inside else link[1]

    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", kept, text)


def write() -> None:
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    made = {**api.pages(), "capabilities.md": capabilities.page()}
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
