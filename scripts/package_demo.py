"""Put a trained demo model into the package, in float16.

    python scripts/package_demo.py runs/shapes-1 runs/shapes-2 ...
    python scripts/package_demo.py --drawing runs/pictures

The model is the last run's: the one that answers in fairseq's file format with its vocabulary files, the one that draws
as a model directory. The runs' logs and plots go to recipes/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import ofa_core
from checkpoints_convert import save_fairseq
from ofa_core.checkpoint.model_dir import WEIGHTS_FILE, load_config, load_tokenizer, read_safetensors
from ofa_core.checkpoint.names import DEMO_CHECKPOINT, DRAWING_MODEL
from ofa_core.training.log import LOG_FILE, PLOT_FILE
from ofa_core.training.stored import LAST

RECIPES = Path(__file__).parent.parent / "recipes"
DRAWING_CARD = """# demo-pictures

A small OFA that draws one or two coloured shapes, 64 pixels wide: `ofa_core.load("demo-pictures")`. It comes with
ofa_core, was trained on drawn pictures alone (`make train-demo-pictures`), and is under its licence.
"""
#: The most bytes of a model that the package carries.
LIMIT = 12_000_000


def package_answering(model: Path) -> int:
    """Write the model that answers; returns its bytes."""
    config = load_config(model)
    state = read_safetensors(model / WEIGHTS_FILE)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if not all(torch.isfinite(tensor).all() for tensor in half.values()):
        raise SystemExit(f"{model} has weights that are too large for float16")
    DEMO_CHECKPOINT.parent.mkdir(exist_ok=True)
    DEMO_CHECKPOINT.unlink(missing_ok=True)
    save_fairseq(DEMO_CHECKPOINT, half, config)
    load_tokenizer(model, config).save(DEMO_CHECKPOINT.parent)
    return DEMO_CHECKPOINT.stat().st_size


def package_drawing(model: Path) -> int:
    """Write the model that draws; returns its bytes."""
    ofa = ofa_core.load(model, dtype="float16", optimize=False)
    ofa.model.half()  # the stem as well, which computes in float32 whatever the type
    ofa.save(DRAWING_MODEL, card=DRAWING_CARD, overwrite=True)
    return sum(path.stat().st_size for path in DRAWING_MODEL.iterdir())


def main(argv: Sequence[str] | None = None) -> int:
    """Package the last of the runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--drawing", action="store_true", help="it is the model that draws")
    args = parser.parse_args(argv)
    model = args.runs[-1] / LAST
    size = package_drawing(model) if args.drawing else package_answering(model)
    for run in args.runs:
        for name in (LOG_FILE, PLOT_FILE):
            if (run / name).is_file():
                shutil.copy(run / name, RECIPES / f"{run.name}.{name}")
    print(f"{size / 1e6:.1f} MB")
    return int(size > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
