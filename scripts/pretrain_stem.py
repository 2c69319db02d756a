"""Teach an image stem to see shapes: the colour and kind at every patch, before a model is built on it.

    python scripts/pretrain_stem.py runs/stem.safetensors

OFA's own stems begin as ResNets that were trained on ImageNet; this is the same for the drawn world. It takes about
seven minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ofa_core.config import STEM_DEPTHS
from ofa_core.demo.world import COLOURS, KINDS, Scene, draw, make_scene
from ofa_core.positions import PATCH_SIZE
from ofa_core.progress import progress
from ofa_core.vision.resnet import OUT_CHANNELS, Bottleneck, ResNetStem
from ofa_core.vision.transform import ImageTransform

SIDE = 128
#: Labels of a patch: nothing, or a colour and a kind.
COLOUR_LABELS, KIND_LABELS = ("", *COLOURS), ("", *KINDS)


class Patches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches of pictures with the colour and the kind at the middle of every patch."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.transform = ImageTransform(SIDE)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        scenes = [make_scene(10_000_000 + step * self.batch_size + i, things=(1, 6)) for i in range(self.batch_size)]
        labels = torch.stack([patch_labels(scene) for scene in scenes])
        return self.transform.batch([draw(scene) for scene in scenes]), labels[:, 0], labels[:, 1]


def patch_labels(scene: Scene) -> Tensor:
    """Indices [2, rows, columns] into the colours and kinds; what is drawn later covers what was drawn before."""
    count = SIDE // PATCH_SIZE
    labels = torch.zeros(2, count, count, dtype=torch.long)
    x = (torch.arange(count) + 0.5) / count * scene.width
    y = (torch.arange(count) + 0.5) / count * scene.height
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        inside = ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))[None, :]
        labels[0][inside] = COLOUR_LABELS.index(thing.colour)
        labels[1][inside] = KIND_LABELS.index(thing.kind)
    return labels


def main() -> int:
    """Train and write the stem; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=48)
    args = parser.parse_args()
    torch.manual_seed(1)
    stem = ResNetStem(STEM_DEPTHS["resnet18"]).to(memory_format=torch.channels_last).train()
    for block in stem.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)  # every block begins as the identity
    head = nn.Conv2d(OUT_CHANNELS, len(COLOUR_LABELS) + len(KIND_LABELS), 1)
    parameters = [*stem.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps)
    loader = DataLoader(Patches(args.batch_size), batch_size=None, sampler=range(args.steps), num_workers=1)
    with progress(args.steps, 0, "stem", unit=" steps") as bar:
        for pixels, colours, kinds in loader:
            with torch.autocast("cpu", torch.bfloat16):
                scores = head(stem(pixels))
            of_colours, of_kinds = scores.float().split([len(COLOUR_LABELS), len(KIND_LABELS)], dim=1)
            loss = F.cross_entropy(of_colours, colours) + F.cross_entropy(of_kinds, kinds)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            there = kinds > 0
            right = (of_kinds.argmax(1) == kinds)[there].float().mean()
            bar.set_postfix_str(f"loss {loss:.3f}, kinds {right:.2f}", refresh=False)
            bar.update()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in stem.state_dict().items()}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
