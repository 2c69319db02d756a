"""Teach an image stem to see shapes: the colour, the kind and the edges at every patch, before a model is built on it.

    python scripts/pretrain_stem.py runs/stem.safetensors

OFA's own stems begin as ResNets that were trained on ImageNet; this is the same for the drawn world. It takes about
seven minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ofa_core.config import STEM_DEPTHS
from ofa_core.demo.world import COLOURS, KINDS, Scene, Thing, draw, make_scene
from ofa_core.positions import PATCH_SIZE
from ofa_core.progress import progress
from ofa_core.vision.resnet import OUT_CHANNELS, Bottleneck, ResNetStem
from ofa_core.vision.transform import ImageTransform

SIDE = 128
#: Labels of a patch: nothing, or a colour and a kind.
COLOUR_LABELS, KIND_LABELS = ("", *COLOURS), ("", *KINDS)


#: Waves along an axis that say where an edge is, as the embeddings of bins do.
WAVES = 8


class Patches(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Batches of pictures with the colour, the kind and the box of the shape at every patch."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.transform = ImageTransform(SIDE)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scenes = [make_scene(10_000_000 + step * self.batch_size + i, things=(1, 6)) for i in range(self.batch_size)]
        colours, kinds, boxes = map(torch.stack, zip(*map(patch_labels, scenes), strict=True))
        return self.transform.batch([draw(scene) for scene in scenes]), colours, kinds, boxes


def patch_labels(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [rows, columns] of colours and of kinds, and the box's sides [4, rows, columns] as parts of the picture.

    A patch shows the shape whose box holds the patch's middle, what is drawn later before what is earlier; but the
    patch with the middle of a shape always shows that shape.
    """
    count = SIDE // PATCH_SIZE
    colours, kinds = torch.zeros(2, count, count, dtype=torch.long)
    boxes = torch.zeros(4, count, count)
    middle = (torch.arange(count) + 0.5) / count
    scale = torch.tensor([scene.width, scene.height] * 2)

    def label(thing: Thing, where: Tensor) -> None:
        colours[where] = COLOUR_LABELS.index(thing.colour)
        kinds[where] = KIND_LABELS.index(thing.kind)
        boxes[:, where] = (torch.tensor(thing.box) / scale)[:, None]

    for thing in scene.things:
        x0, y0, x1, y1 = (torch.tensor(thing.box) / scale).tolist()
        label(thing, ((middle >= y0) & (middle <= y1))[:, None] & ((middle >= x0) & (middle <= x1))[None, :])
    for thing in scene.things:
        x, y = thing.centre
        where = torch.zeros(count, count, dtype=torch.bool)
        where[int(y / scene.height * count), int(x / scene.width * count)] = True
        label(thing, where)
    return colours, kinds, boxes


def edge_targets(boxes: Tensor) -> Tensor:
    """What is to be said of boxes [B, 4, rows, columns]: [B, 4 + 8 x WAVES, rows, columns].

    The distances of the sides from the middle of the patch, in patches; and slow waves of the sides' places, slower
    ones larger.
    """
    count = boxes.shape[-1]
    middle = (torch.arange(count) + 0.5) / count
    middles = torch.stack([middle.expand(count, count), middle[:, None].expand(count, count)]).repeat(2, 1, 1)
    number = torch.arange(1, WAVES + 1)[:, None, None]
    place = boxes[:, :, None] * math.pi * number  # [B, 4, WAVES, rows, columns]
    waves = torch.cat([place.cos() / number, place.sin() / number], dim=2) * 3
    return torch.cat([(boxes - middles) * count, waves.flatten(1, 2)], dim=1)


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
    edges = 4 + 8 * WAVES
    head = nn.Conv2d(OUT_CHANNELS, len(COLOUR_LABELS) + len(KIND_LABELS) + edges, 1)
    parameters = [*stem.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps)
    loader = DataLoader(Patches(args.batch_size), batch_size=None, sampler=range(args.steps), num_workers=1)
    with progress(args.steps, 0, "stem", unit=" steps") as bar:
        for pixels, colours, kinds, boxes in loader:
            with torch.autocast("cpu", torch.bfloat16):
                scores = head(stem(pixels))
            of_colours, of_kinds, found = scores.float().split([len(COLOUR_LABELS), len(KIND_LABELS), edges], dim=1)
            there = kinds > 0
            off = (found - edge_targets(boxes)).abs().movedim(1, -1)[there].mean(0)
            loss = F.cross_entropy(of_colours, colours) + F.cross_entropy(of_kinds, kinds)
            loss = loss + off[:4].mean() + 2 * off[4:].mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            right = (of_kinds.argmax(1) == kinds)[there].float().mean()
            bar.set_postfix_str(
                f"loss {loss:.3f}, kinds {right:.2f}, edges {off[:4].mean():.2f}, waves {off[4:].mean():.3f}",
                refresh=False,
            )
            bar.update()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in stem.state_dict().items()}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
