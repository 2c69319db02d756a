"""Build the package and try it as a user would: ``make package``.

An sdist is built, from it a wheel, and both must pass ``twine check``. The wheel is installed into an environment of
its own, which sees the dependencies here and not the repository, and answers there. ``--types`` also asks pyright how
much of what is public has a known type.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The share of public names whose type must be known, 0 to 1.
KNOWN_TYPES = 0.95
#: Runs outside of the repository: where the package lies, its version, and an answer of the demo model.
PROGRAM = """
import ofa_core, checkpoints_convert, sys
from ofa_core.demo.example import example_picture
assert ofa_core.__file__.startswith(sys.prefix), ofa_core.__file__
assert checkpoints_convert.__file__.startswith(sys.prefix), checkpoints_convert.__file__
picture = example_picture()
picture.save("picture.png")
found = ofa_core.load("demo").ground(picture, "the red circle")
print(ofa_core.__version__, found.box)
assert found.box is not None
"""


def build(out: Path) -> Path:
    """Build sdist and wheel; returns the wheel."""
    call(sys.executable, "-m", "build", "--outdir", out, ROOT)
    call(sys.executable, "-m", "twine", "check", "--strict", *sorted(out.iterdir()))
    (wheel,) = out.glob("*.whl")
    return wheel


def environment(directory: Path) -> Path:
    """Make an environment that sees this one's packages, but for those that are installed from the repository."""
    venv.create(directory, with_pip=True)
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    (packages,) = directory.glob("lib/python*/site-packages")
    # a path in a .pth file is searched last, and .pth files in it (an editable install) are not read
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python


def try_out(wheel: Path, directory: Path) -> None:
    """Install a wheel and run it in an empty directory."""
    python = environment(directory / "environment")
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    call(python, "-c", PROGRAM, cwd=elsewhere)
    for program in ("ofa-core", "convert-ckpt"):
        call(python.parent / program, "--help", cwd=elsewhere, quiet=True)
    call(python.parent / "ofa-core", "caption", "picture.png", "--model", "demo", cwd=elsewhere)


def check_types() -> float:
    """The share of public names with a known type, by pyright's count."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "ofa_core", "--ignoreexternal", "--outputjson"]
    surroundings = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    # pyright ends with 1 where anything is unknown
    found = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    return float(json.loads(found.stdout)["typeCompleteness"]["completenessScore"])


def call(*command: object, cwd: Path = ROOT, quiet: bool = False) -> None:
    """Run a program, without the repository on Python's path."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    printed = subprocess.DEVNULL if quiet else None
    subprocess.run([str(part) for part in command], cwd=cwd, env=surroundings, check=True, stdout=printed)


def main(argv: Sequence[str] | None = None) -> int:
    """Build and try; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", action="store_true", help="also count the public names whose type is known")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        try_out(build(directory / "dist"), directory)
    if parser.parse_args(argv).types:
        known = check_types()
        print(f"types known: {known:.1%}, at least {KNOWN_TYPES:.0%} are asked for")
        return int(known < KNOWN_TYPES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
