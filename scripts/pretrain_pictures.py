"""Teach a small network of image codes to draw shapes: the codes of the demo model that draws.

    python scripts/pretrain_pictures.py runs/pictures.safetensors

Its architecture is that of OFA's own network (:mod:`ofa_core.vision.vqgan`), smaller. Latents have length one, and the
code of a place is the vector nearest to its latent; gradients pass as if there were no code (van den Oord, Vinyals and
Kavukcuoglu, 2017, https://arxiv.org/abs/1711.00937). Vectors are moving averages of the latents that they stand for,
and those that stand for few begin anew at latents that are far from all. At first there are no codes, so that there are
latents worth a vector. About half an hour on one CPU core; it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ofa_core.checkpoint.image_codes import write_vqgan
from ofa_core.demo.pictures import captioned
from ofa_core.utils.atomic_write import atomic_path
from ofa_core.utils.progress import progress
from ofa_core.vision.vqgan import VQGAN, VQGANConfig

#: A norm has 32 groups: of 64 channels, two each, so that it leaves how light a picture is.
CONFIG = VQGANConfig(
    channels=64, multipliers=(1, 1, 1, 1), blocks=0, attention_levels=(), latent_channels=32, code_dim=32, num_codes=256
)  # fmt: skip
STEPS, BATCH_SIZE, RATE = 3600, 8, 2e-3
#: Steps without codes; the steps from which vectors no longer begin anew, and from which they stay.
WITHOUT_CODES, LAST_NEW, STAY = 400, int(0.6 * STEPS), int(0.85 * STEPS)
#: The share of a moving average that stays at each step, and the latents a step that a vector must stand for.
DECAY, FEWEST = 0.98, 0.03
#: Weights of the loss: absolute and squared error, and how far latents lie from their vectors.
ABSOLUTE, SQUARED, NEARNESS = 0.3, 4.0, 0.25
SAVE_EVERY = 200
#: The number of the first picture, which no other training begins with.
FIRST = 20_000_000


class Pictures(Dataset[Tensor]):
    """Batches of pictures [B, 3, 64, 64] from -1 to 1."""

    def __getitem__(self, step: int) -> Tensor:
        first = FIRST + step * BATCH_SIZE
        pixels = np.stack([np.asarray(captioned(seed)[0]) for seed in range(first, first + BATCH_SIZE)])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


class Vectors(nn.Module):
    """The vectors of the codes [K, D], of length one, and the averages that they are made of."""

    counts: Tensor
    sums: Tensor

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.register_buffer("counts", torch.ones(config.num_codes))
        self.register_buffer("sums", torch.zeros(config.num_codes, config.code_dim))

    @property
    def unit(self) -> Tensor:
        """The vectors."""
        return F.normalize(self.sums, dim=1)

    def begin(self, latents: Tensor) -> None:
        """Take latents [N, D] that are far from each other (Arthur and Vassilvitskii, 2007, k-means++)."""
        distances = 2 - 2 * latents @ latents[0]
        chosen = [0]
        while len(chosen) < len(self.counts):
            chosen.append(int(torch.multinomial(distances.clamp(min=1e-6), 1)))
            distances = torch.minimum(distances, 2 - 2 * latents @ latents[chosen[-1]])
        self.sums.copy_(latents[chosen])
        self.counts.fill_(1)

    def follow(self, latents: Tensor, codes: Tensor) -> None:
        """Move the vectors towards the latents [N, D] that ``codes`` [N] say they stand for."""
        shares = F.one_hot(codes, len(self.counts)).float()
        self.counts.mul_(DECAY).add_(shares.sum(0), alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(shares.T @ latents, alpha=1 - DECAY)

    def renew(self, latents: Tensor, codes: Tensor) -> None:
        """Let vectors that stand for few latents begin anew, at those that are far from their own."""
        few = (self.counts < FEWEST).nonzero()[:, 0]
        distances = 2 - 2 * (latents * self.unit[codes]).sum(1)
        if len(few):
            chosen = latents[torch.multinomial(distances.clamp(min=1e-6), len(few), replacement=True)]
            self.sums[few], self.counts[few] = chosen, 1.0

    @torch.no_grad()
    def codes(self, latents: Tensor, step: int) -> Tensor:
        """The codes [N] of latents [N, D] at a step; the vectors learn from them."""
        if step == WITHOUT_CODES:
            self.begin(latents)
        codes = (latents @ self.unit.T).argmax(1)
        if step < STAY:
            self.follow(latents, codes)
        if step < LAST_NEW and step % 10 == 0:
            self.renew(latents, codes)
        return codes


def loss_of(vqgan: VQGAN, vectors: Vectors, pixels: Tensor, step: int) -> tuple[Tensor, float, int]:
    """The loss of a batch, the mean error of its pixels (0 to 255), and how many codes it uses."""
    latents = F.normalize(vqgan.quant_conv(vqgan.encoder(pixels)).float(), dim=1)
    nearness, used, taken = latents.new_zeros(()), 0, latents
    if step >= WITHOUT_CODES:
        flat = latents.detach().permute(0, 2, 3, 1).flatten(0, 2)
        codes = vectors.codes(flat, step)
        nearest = vectors.unit[codes].reshape(*latents.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        nearness, used = (latents - nearest).square().sum(1).mean(), int(codes.unique().numel())
        taken = latents + (nearest - latents).detach()
    decoded = vqgan.decoder(vqgan.post_quant_conv(taken * length())).float()
    error = (decoded - pixels).abs().mean()
    loss = ABSOLUTE * error + SQUARED * F.mse_loss(decoded, pixels) + NEARNESS * nearness
    return loss, error.item() * 127.5, used


def length() -> float:
    """The length of a vector in the file, at which each of its entries is about one."""
    return math.sqrt(CONFIG.code_dim)


def with_codes(vqgan: VQGAN, vectors: Vectors) -> VQGAN:
    """The network with the vectors in it: the score of a code is its vector's product with the latent.

    The product is largest for the same vector whatever the latent's length is.
    """
    with torch.no_grad():
        vqgan.quantize.embed.weight.copy_(vectors.unit * length())
        vqgan.quantize.proj.weight.copy_(vectors.unit[..., None, None] * length())
        vqgan.quantize.proj.bias = nn.Parameter(torch.zeros(CONFIG.num_codes))
    return vqgan


def main() -> int:
    """Train and write the network, or go on where it stopped; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.manual_seed(1)
    vqgan = VQGAN(CONFIG).to(memory_format=torch.channels_last).train()
    vectors = Vectors(CONFIG)
    learning = [parameter for name, parameter in vqgan.named_parameters() if not name.startswith("quantize.")]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor)
    parts: dict[str, Any] = {"model": vqgan, "vectors": vectors, "optimizer": optimizer, "schedule": schedule}
    held = out.with_suffix(".training.pt")
    done = 0
    if held.is_file():
        saved = torch.load(held, weights_only=True)
        done = saved.pop("done")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    out.parent.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(Pictures(), batch_size=None, sampler=range(done, STEPS), num_workers=0)
    with progress(STEPS, done, "pictures", unit=" steps") as bar:
        for step, pixels in enumerate(loader, done):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16):
                loss, error, used = loss_of(vqgan, vectors, pixels.to(memory_format=torch.channels_last), step)
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            bar.set_postfix_str(f"off by {error:.1f} of 255, {used} codes", refresh=False)
            bar.update()
            if (step + 1) % SAVE_EVERY == 0:
                states = {name: part.state_dict() for name, part in parts.items()}
                with atomic_path(held) as temporary:
                    torch.save(states | {"done": step + 1}, temporary)
    state = with_codes(vqgan, vectors).state_dict()
    write_vqgan(out, {name: tensor.half() for name, tensor in state.items()})
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


def rate_factor(step: int) -> float:
    """A short rise, then half a cosine to a fiftieth."""
    return min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, step / STEPS))) / 2)


if __name__ == "__main__":
    sys.exit(main())
