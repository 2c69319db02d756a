"""The two programs on the small model that comes with the package, from fairseq's file format to boxes and answers.

The model was trained on drawn shapes for about two hours (recipes/); the README says what it has learned.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from ofa_core.checkpoint.names import DEMO_CHECKPOINT

OUT = Path("demo_output")
#: Phrases to ground, and the picture that each one's box is drawn on.
PHRASES = {"the red circle": "result.png", "the lowest shape": "result2.png"}
BLUE_SQUARE = (190, 40, 270, 120)


def main() -> int:
    """Run the demo; returns the exit code."""
    OUT.mkdir(exist_ok=True)
    directory, picture = OUT / "ofa", OUT / "picture.png"
    draw_picture().save(picture)
    _run("convert-ckpt", DEMO_CHECKPOINT, directory, "--overwrite")
    for phrase, result in PHRASES.items():
        _run("ofa-core", "ground", picture, phrase, "--model", directory, "--out", OUT / result)
    _run("ofa-core", "caption", picture, "--model", directory)
    _run("ofa-core", "answer", picture, "how many shapes are there?", "--model", directory)
    _run("ofa-core", "oracle", picture, "is it blue?", "--box", *BLUE_SQUARE, "--model", directory)
    print(f"\n{' and '.join(str(OUT / result) for result in PHRASES.values())} show the boxes in {picture}.")
    return 0


def draw_picture() -> Image.Image:
    """A red circle, a blue square and a green triangle."""
    picture = Image.new("RGB", (320, 240), (176, 182, 188))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((30, 60, 110, 140), fill=(205, 40, 40))
    draw.rectangle(BLUE_SQUARE, fill=(45, 75, 205))
    draw.polygon([(150, 220), (190, 150), (230, 220)], fill=(40, 145, 60))
    return picture


def _run(program: str, *arguments: object) -> None:
    command = [program, *map(str, arguments)]
    print("\n$", " ".join(f"'{word}'" if " " in word else word for word in command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / program), *command[1:]], check=True)


if __name__ == "__main__":
    sys.exit(main())
