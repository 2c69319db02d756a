"""The two programs on the small model that comes with the package, from fairseq's file format to boxes and answers.

The model was trained on drawn shapes for about two hours (recipes/); docs/start/demo_model.md says what it has learned.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ofa_core.checkpoint.names import DEMO_CHECKPOINT
from ofa_core.demo.example import BLUE_SQUARE, example_picture

OUT = Path("demo_output")
#: Phrases to ground, and the picture that each one's box is drawn on.
PHRASES = {"the red circle": "result.png", "the lowest shape": "result2.png"}
#: Words at the end: what one may do from here.
NEXT = """There is no yellow star, so it has no box.

Next:
  .venv/bin/ofa-core web --model demo              a page in the browser: find, talk, ask, watch two models play
  .venv/bin/ofa-core chat demo_output/picture.png --model demo
                                                   say "i want the red shape."
  .venv/bin/ofa-core ground PHOTO "the dog on the left" --model refcoco_base_best --out box.png
                                                   a real checkpoint: it is downloaded once, and needs 2 GB of memory
"""


def main() -> int:
    """Run the demo; returns the exit code."""
    OUT.mkdir(exist_ok=True)
    directory, picture = OUT / "ofa", OUT / "picture.png"
    example_picture().save(picture)
    _run("convert-ckpt", DEMO_CHECKPOINT, directory, "--overwrite")
    for phrase, result in PHRASES.items():
        _run("ofa-core", "ground", picture, phrase, "--model", directory, "--out", OUT / result)
    _run("ofa-core", "caption", picture, "--model", directory)
    _run("ofa-core", "answer", picture, "what color is the square?", "--model", directory)
    _run("ofa-core", "oracle", picture, "is it blue?", "--box", *BLUE_SQUARE, "--model", directory)
    _run("ofa-core", "ground", picture, "the yellow star", "--model", directory)
    print(f"\n{' and '.join(str(OUT / result) for result in PHRASES.values())} show the boxes in {picture}. {NEXT}")
    return 0


def _run(program: str, *arguments: object) -> None:
    command = [program, *map(str, arguments)]
    print("\n$", " ".join(f"'{word}'" if " " in word else word for word in command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / program), *command[1:]], check=True)


if __name__ == "__main__":
    sys.exit(main())
