"""The two programs on a small model, from a checkpoint in fairseq's own format to a picture with a box.

The weights are random (the same every time), so the box shows that everything works and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from checkpoints_convert import save_fairseq
from ofa_core import OFAConfig, OFAModel, TaskSettings, Tokenizer
from ofa_core.text import small_vocabulary_dir

OUT = Path("demo_output")
PHRASE = "the red circle on the left"


def main() -> int:
    """Run the demo; returns the exit code."""
    OUT.mkdir(exist_ok=True)
    checkpoint, directory, picture, result = (OUT / name for name in ("ofa.pt", "ofa", "picture.png", "result.png"))
    write_checkpoint(checkpoint)
    draw_picture().save(picture)
    _run("convert-ckpt", checkpoint, directory, "--bpe-dir", small_vocabulary_dir(), "--overwrite")
    _run("ofa-core", "ground", picture, PHRASE, "--model", directory, "--bins-only", "--out", result)
    print(f"\n{result} shows the box. It means nothing yet: this model's weights are random.")
    return 0


def write_checkpoint(path: Path) -> None:
    """A small OFA with reproducible random weights, in fairseq's file format."""
    vocabulary = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    config = OFAConfig(
        embed_dim=64,
        ffn_dim=128,
        encoder_layers=2,
        decoder_layers=2,
        num_heads=4,
        stem_depths=(2, 2, 2),
        vocab_size=len(vocabulary),
        task=TaskSettings(name="refcoco", image_size=128, max_image_size=128, code_dict_size=0),
    )
    torch.manual_seed(49)
    save_fairseq(path, OFAModel(config).state_dict(), config)


def draw_picture() -> Image.Image:
    """A few coloured shapes."""
    picture = Image.new("RGB", (320, 240), (235, 235, 225))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((30, 60, 110, 140), fill=(200, 40, 40))
    draw.rectangle((190, 40, 270, 120), fill=(50, 90, 200))
    draw.polygon([(150, 220), (190, 150), (230, 220)], fill=(60, 160, 80))
    return picture


def _run(program: str, *arguments: object) -> None:
    command = [program, *map(str, arguments)]
    print("\n$", " ".join(f"'{word}'" if " " in word else word for word in command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / program), *command[1:]], check=True)


if __name__ == "__main__":
    sys.exit(main())
