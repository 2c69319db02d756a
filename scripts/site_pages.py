"""Pages of the documentation site that stand elsewhere in the repository: notebooks, the changelog, how to contribute.

mkdocs calls the functions with names ``on_...`` (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
#: Files at the root of the repository that are pages of the site.
PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
_DATA_OF_PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=from_root(text)))
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        for name, content in notebook_page(notebook).items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def from_root(text: str) -> str:
    """A page of the repository's root with links that fit where the site has it."""
    text = text.replace("](docs/", "](")
    for page, source in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text


def notebook_page(notebook: Path) -> dict[str, str | bytes]:
    """A notebook as a page in Markdown, with the pictures of its outputs, by their names."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    pictures: dict[str, str | bytes] = {}
    parts: list[str] = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "](../"))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts.extend(_shown(output, f"{notebook.stem}_{len(pictures)}", pictures))
    link = f"This page is the notebook `examples/{notebook.name}` as it ran."
    return {f"{notebook.stem}.md": "\n\n".join([*parts, link]) + "\n", **pictures}


def _shown(output: dict[str, Any], name: str, pictures: dict[str, str | bytes]) -> Iterator[str]:
    """Show in Markdown what a cell printed or drew; pictures are added to ``pictures``."""
    if "text" in output:
        yield f"```text\n{''.join(output['text']).rstrip()}\n```"
        return
    data = output.get("data", {})
    for kind, suffix in _DATA_OF_PICTURES.items():
        if kind in data:
            content = "".join(data[kind])
            pictures[f"{name}.{suffix}"] = content if suffix == "svg" else base64.b64decode(content)
            yield f"![What the cell above shows]({name}.{suffix})"
            return
    if "text/plain" in data:
        yield f"```text\n{re.sub(' at 0x[0-9a-f]+', '', ''.join(data['text/plain']))}\n```"
