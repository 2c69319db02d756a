"""Put a trained demo model into the package: float16, in fairseq's file format, with its vocabulary files.

    python scripts/package_demo.py runs/shapes-1 runs/shapes-2 ...

The model is the last run's; the runs' logs and plots go to recipes/.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from checkpoints_convert import save_fairseq
from ofa_core.checkpoint.model_dir import WEIGHTS_FILE, load_config, load_tokenizer, read_safetensors
from ofa_core.checkpoint.names import DEMO_CHECKPOINT
from ofa_core.training.log import LOG_FILE, PLOT_FILE
from ofa_core.training.stored import LAST

RECIPES = Path(__file__).parent.parent / "recipes"
#: The largest file that the package carries.
LIMIT = 12_000_000


def main(runs: list[Path]) -> int:
    """Package the last of ``runs``; returns the exit code."""
    model = runs[-1] / LAST
    config = load_config(model)
    state = read_safetensors(model / WEIGHTS_FILE)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if not all(torch.isfinite(tensor).all() for tensor in half.values()):
        print(f"{model} has weights that are too large for float16", file=sys.stderr)
        return 1
    DEMO_CHECKPOINT.parent.mkdir(exist_ok=True)
    DEMO_CHECKPOINT.unlink(missing_ok=True)
    save_fairseq(DEMO_CHECKPOINT, half, config)
    load_tokenizer(model, config).save(DEMO_CHECKPOINT.parent)
    for run in runs:
        for name in (LOG_FILE, PLOT_FILE):
            shutil.copy(run / name, RECIPES / f"{run.name}.{name}")
    size = DEMO_CHECKPOINT.stat().st_size
    print(f"{DEMO_CHECKPOINT}: {size / 1e6:.1f} MB")
    return int(size > LIMIT)


if __name__ == "__main__":
    sys.exit(main([Path(run) for run in sys.argv[1:]]))
