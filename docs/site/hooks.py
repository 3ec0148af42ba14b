# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Build the site from the repository's files where they are, so that their links hold in both.

Pages and images keep their paths. A source file that a page links to becomes a page too.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
import subprocess
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
COPIED = (".md", ".png", ".svg")
LANGUAGES = {".cuh": "cuda", ".cu": "cuda", ".h": "cpp", ".inl": "cpp", ".cpp": "cpp"}
LANGUAGES |= {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json"}
# The defaults of parameters that have names, as DEFAULT_EPS.
CONSTANTS = dict(
    re.findall(
        r"^(DEFAULT_\w+) = (.+)$", (ROOT / "nec_ext" / "_arguments.py").read_text(), re.MULTILINE
    )
)
LINK = re.compile(r"(?<=\]\()[^)#:\s]+(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and images of the repository, and the source files that pages link to."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    linked: set[str] = set()
    for name in names.splitlines():
        path = ROOT / name
        if name.endswith(COPIED):
            files.append(File.generated(config, name, abs_src_path=str(path)))
        if name.endswith(".md"):
            linked |= {_target(name, link) for link in LINK.findall(path.read_text())}
    sources = [name for name in linked if (ROOT / name).is_file() and not name.endswith(COPIED)]
    for name in sources:
        if name.endswith(".ipynb"):
            _add_notebook(files, config, name)
        else:
            files.append(File.generated(config, f"{name}.md", content=_source(name)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Point links to source files at their pages."""

    def to_page(link: re.Match[str]) -> str:
        name = _target(page.file.src_uri, link[0])
        return link[0] + ".md" * (files.get_file_from_path(f"{name}.md") is not None)

    return LINK.sub(to_page, markdown)


def _target(name: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _source(name: str) -> str:
    language = LANGUAGES.get(Path(name).suffix, "text")
    text = (ROOT / name).read_text()
    return f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n`````{language}\n{text}\n`````\n"


def _add_notebook(files: Files, config: MkDocsConfig, name: str) -> None:
    """Add a notebook as a page, with what its cells have printed and drawn."""
    parts: list[str] = []
    _licence, *cells = json.loads((ROOT / name).read_text())["cells"]
    for k, cell in enumerate(cells):
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                image = f"{name}-{k}.png"
                content = base64.b64decode(data["image/png"])
                files.append(File.generated(config, image, content=content))
                parts.append(f"![What the cell has drawn]({posixpath.basename(image)})")
            elif output.get("name") == "stdout":
                parts.append(f"```text\n{''.join(output['text'])}\n```")
    files.append(File.generated(config, f"{name}.md", content="\n\n".join(parts)))


class Roles(griffe.Extension):
    """Turn the roles of docstrings into links, and let one example be code as several are."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replace what the docstring of an object writes in another way than mkdocstrings."""
        if obj.docstring:
            role, link = r":func:`(?:nec_ext\.)?([\w.]+)`", r"[`nec_ext.\1`][nec_ext.\1]"
            text = re.sub(role, link, obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Show a default by its value in place of the name of its constant."""
        for parameter in func.parameters:
            if str(parameter.default) in CONSTANTS:
                parameter.default = CONSTANTS[str(parameter.default)]
