"""Make the badges of the README from pyproject.toml: ``make gallery``. A test holds that they are true."""

from __future__ import annotations

import sys
from pathlib import Path

import ofa_core
from ofa_core.utils.toml_files import read_toml

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
#: Width of a letter and of the space on each side of a word, and a badge's height, in pixels.
LETTER, SIDE, HEIGHT = 7, 7, 20

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" aria-label="{name}: {value}">
<rect width="{width}" height="{height}" rx="3" fill="#555"/>
<path d="M{left} 0h{right}v{height}h-{right}z" fill="#3949ab"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{name_at}" y="14">{name}</text><text x="{value_at}" y="14">{value}</text></g>
</svg>
"""


def facts() -> dict[str, str]:
    """The badges' names and what they say."""
    project = read_toml(ROOT / "pyproject.toml")["project"]
    return {
        "python": project["requires-python"].removeprefix(">=") + "+",
        "license": project["license"],
        "version": ofa_core.__version__,
        "types": "included" if "Typing :: Typed" in project["classifiers"] else "none",
    }


def badge(name: str, value: str) -> str:
    """A badge as SVG: a name on grey, and what is true of it on blue."""
    left, right = (len(text) * LETTER + 2 * SIDE for text in (name, value))
    places = {"name_at": left / 2, "value_at": left + right / 2}
    return _SVG.format(width=left + right, height=HEIGHT, left=left, right=right, name=name, value=value, **places)


def main() -> int:
    """Write all badges."""
    for name, value in facts().items():
        (PICTURES / f"badge-{name}.svg").write_text(badge(name, value), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
