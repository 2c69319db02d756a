"""Parts of docstrings that mkdocstrings does not read by itself: comments on fields, and names of other objects.

mkdocs.yml names this file among the extensions of griffe, which reads the code for the reference.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

#: A name of another object as Sphinx writes it; of ``~package.Name`` the last part is shown.
_ROLE = re.compile(r":(?:class|meth|func|data|mod|attr|exc):`(?:~(?:[\w.]*\.)?)?([\w.]+)`")


class DocstringPages(griffe.Extension):
    """Gives fields the ``#:`` comments above them, and shows Sphinx's roles as code."""

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Take the comment above a field for its docstring."""
        comment = _comment_above(attr)
        if comment and attr.docstring is None:
            attr.docstring = griffe.Docstring(comment, parent=attr)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Show names of other objects as code."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)


def _comment_above(attribute: griffe.Attribute) -> str:
    """The lines that begin with ``#:`` directly above a field."""
    if attribute.lineno is None or isinstance(attribute.filepath, list):
        return ""
    lines = attribute.lines_collection[attribute.filepath]
    last = attribute.lineno - 1
    first = last
    while first > 0 and lines[first - 1].strip().startswith("#:"):
        first -= 1
    return " ".join(line.strip()[2:].strip() for line in lines[first:last])
