"""Run the notebooks in examples/ and store what they show: ``make notebooks``.

Each runs in an empty directory. Progress and warnings, which go to stderr, are not stored, nor are times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
#: Seconds that one cell may take.
LONGEST = 1800


def run(notebook: Path, directory: Path, replacements: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """Run a notebook in a directory.

    Args:
        notebook: the file, which stays as it is.
        directory: the working directory of its cells.
        replacements: texts in its cells and what is run in their places, such as fewer steps.

    Returns:
        The notebook with what its cells show.

    Raises:
        CellExecutionError: a cell failed.
    """
    content = nbformat.read(notebook, as_version=4)
    for old, new in (replacements or {}).items():
        for cell in content.cells:
            cell.source = cell.source.replace(old, new)
    resources = {"metadata": {"path": str(directory)}}
    NotebookClient(
        content,
        timeout=LONGEST,
        kernel_name="python3",
        resources=resources,
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    content.metadata.pop("language_info", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data = {"image/png": output.data["image/png"]}
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run all notebooks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run; all in examples/ by default")
    failed = False
    for notebook in parser.parse_args(argv).notebooks or sorted(EXAMPLES.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as directory:
            try:
                content = run(notebook, Path(directory))
            except CellExecutionError as error:
                print(f"{notebook.name}: {error}", file=sys.stderr)
                failed = True
                continue
        nbformat.write(content, notebook)
        print(f"{notebook.name}: {sum(cell.cell_type == 'code' for cell in content.cells)} cells ran")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
