"""Teach an image stem to see shapes: the colour, the kind and the edges at every patch, before a model is built on it.

    python scripts/pretrain_stem.py runs/stem.safetensors

OFA's own stems begin as ResNets that were trained on ImageNet; this is the same for the drawn world. Many pictures
show the kinds in any colours, or the colours in any outlines, so that neither is guessed from the other: pairs of both
that training never shows are seen for what they are. About fifteen minutes on two CPU cores; it goes on behind the last
phase that is done.

Beside the stem, the file holds what is said of its patches: weights and biases ``words`` of each label's score.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ofa_core.config import STEM_DEPTHS
from ofa_core.demo.world import COLOURS, KINDS, Point, Scene, Thing, draw, make_scene, outline
from ofa_core.model.position_bias import PATCH_SIZE
from ofa_core.training.init import LABELS
from ofa_core.utils.atomic_write import atomic_path
from ofa_core.utils.progress import progress
from ofa_core.vision.resnet import OUT_CHANNELS, Bottleneck, ResNetStem
from ofa_core.vision.transform import ImageTransform

SIDE = 128
#: Labels of a patch: nothing, or a colour and a kind.
COLOUR_LABELS, KIND_LABELS = ("", *COLOURS), ("", *KINDS)
#: Waves along an axis that say where an edge is, as the embeddings of bins do.
WAVES = 8
#: A label that teaches nothing.
IGNORED = -100


class Patches(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Batches of pictures with the colour, the kind and the box of the shape at every patch."""

    def __init__(self, batch_size: int, pictures: Sequence[str]) -> None:
        self.batch_size = batch_size
        self.pictures = pictures
        self.transform = ImageTransform(SIDE)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first = 10_000_000 + step * self.batch_size
        scenes = [make_scene(seed, things=(1, 6)) for seed in range(first, first + self.batch_size)]
        colours, kinds, boxes = map(torch.stack, zip(*map(patch_labels, scenes), strict=True))
        pictures = []
        for index, scene in enumerate(scenes):
            random = Random(f"patches {scene.seed}")
            picture = self.pictures[index % len(self.pictures)]
            if picture == "any colours":
                colours[index] = IGNORED
                pictures.append(draw(scene, colours={name: _any_colour(random) for name in COLOURS}))
            elif picture == "any outlines":
                kinds[index][kinds[index] > 0] = IGNORED
                pictures.append(draw(scene, outlines={kind: _any_outline(random) for kind in KINDS}))
            else:
                pictures.append(draw(scene))
        return self.transform.batch(pictures), colours, kinds, boxes


def _any_colour(random: Random) -> tuple[int, int, int]:
    return random.randrange(256), random.randrange(256), random.randrange(256)


def _any_outline(random: Random) -> list[Point]:
    """Five to nine corners around a middle."""
    corners = random.randint(5, 9)
    turns = [(i + random.uniform(0, 0.8)) / corners * 2 * math.pi for i in range(corners)]
    return outline(turns, [random.uniform(0.3, 1) for _ in turns])


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
    """Targets for boxes [B, 4, rows, columns]: [B, 4 + 8 x WAVES, rows, columns].

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


@torch.no_grad()
def _centre(head: nn.Conv2d, groups: list[int]) -> None:
    """Take the mean score of each group of labels from its scores, which are the same to a softmax."""
    for parameter in head.parameters():
        for group in parameter[: sum(groups)].split(groups):
            group -= group.mean(0, keepdim=True)


@dataclass(frozen=True)
class Phase:
    """A part of the training: what its pictures are like in turn, and how long and how fast it learns."""

    pictures: tuple[str, ...]
    steps: int
    rate: float


#: Plain pictures make the beginning easier; without them nothing speaks for guessing a kind from a colour.
PHASES = (
    Phase(("plain", "any colours", "any outlines"), 650, 2e-3),
    Phase(("any colours", "any outlines"), 250, 1.2e-3),
)
BATCH_SIZE = 48
EDGES = 4 + 8 * WAVES


def main() -> int:
    """Train and write the stem, or go on behind the last phase that is done; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.manual_seed(1)
    stem = ResNetStem(STEM_DEPTHS["resnet18"]).to(memory_format=torch.channels_last).train()
    for block in stem.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)  # every block begins as the identity
    head = nn.Conv2d(OUT_CHANNELS, len(COLOUR_LABELS) + len(KIND_LABELS) + EDGES, 1)
    done = read(out, stem, head)
    for number, phase in enumerate(PHASES[done:], done):
        first = sum(phase.steps for phase in PHASES[:number])
        learn(stem, head, phase, range(first, first + phase.steps))
        write(out, stem, head, number + 1)
    return 0


def learn(stem: ResNetStem, head: nn.Conv2d, phase: Phase, steps: range) -> None:
    """One phase."""
    optimizer = torch.optim.AdamW([*stem.parameters(), *head.parameters()], lr=phase.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.rate, phase.steps)
    loader = DataLoader(Patches(BATCH_SIZE, phase.pictures), batch_size=None, sampler=steps, num_workers=1)
    with progress(phase.steps, 0, " and ".join(phase.pictures), unit=" steps") as bar:
        for pixels, colours, kinds, boxes in loader:
            with torch.autocast("cpu", torch.bfloat16):
                scores = head(stem(pixels))
            of_colours, of_kinds, found = scores.float().split([len(COLOUR_LABELS), len(KIND_LABELS), EDGES], dim=1)
            there = boxes[:, 2] > 0
            off = (found - edge_targets(boxes)).abs().movedim(1, -1)[there].mean(0)
            loss = F.cross_entropy(of_colours, colours) + F.cross_entropy(of_kinds, kinds)
            loss = loss + off[:4].mean() + 2 * off[4:].mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            right = (of_kinds.argmax(1) == kinds)[kinds > 0].float().mean()
            bar.set_postfix_str(
                f"loss {loss:.3f}, kinds {right:.2f}, edges {off[:4].mean():.2f}, waves {off[4:].mean():.3f}",
                refresh=False,
            )
            bar.update()


def write(path: Path, stem: ResNetStem, head: nn.Conv2d, done: int) -> None:
    """Store the stem and what it says of patches, with the number of phases that are done."""
    _centre(head, [len(COLOUR_LABELS), len(KIND_LABELS)])
    words = [*COLOUR_LABELS, *KIND_LABELS, *[""] * EDGES]
    state = {name: tensor.contiguous() for name, tensor in stem.state_dict().items()}
    state |= {f"{LABELS}.{name}": tensor.detach().squeeze() for name, tensor in head.named_parameters()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={LABELS: json.dumps(words), "phases": str(done)})


def read(path: Path, stem: ResNetStem, head: nn.Conv2d) -> int:
    """Take up what :func:`write` stored, if there is anything; returns the number of phases that are done."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        done = int(file.metadata()["phases"])
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(state.pop(f"{LABELS}.{name}").view_as(parameter))
    stem.load_state_dict(state)
    return done


if __name__ == "__main__":
    sys.exit(main())
