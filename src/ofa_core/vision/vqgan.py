"""Pictures from image codes and back: the convolutional network whose code book OFA's image codes index.

The architecture is VQGAN's (Esser, Rombach and Ommer, 2021, https://arxiv.org/abs/2012.09841) with a Gumbel-softmax in
front of its code book. Modules bear the names of the published files' entries, so that their tensors load as they are.

Letters of shapes: B pictures, C channels, h and w rows and columns at the present level, K codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, OFAError

#: Groups of channels that are normalised together, and what is added to their variance.
NORM_GROUPS, NORM_EPS = 32, 1e-6
#: Prefixes of the entries that make codes of pictures; a file without them only makes pictures of codes.
ENCODER_PREFIXES = ("encoder.", "quant_conv.", "quantize.proj.")


@dataclass(frozen=True)
class VQGANConfig:
    """Dimensions of a :class:`VQGAN`; the defaults are those of the network that OFA was trained with."""

    #: Channels at the level of pixels, and how many times as many each level has, from pixels to codes.
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 4)
    #: Residual blocks of a level of the encoder; the decoder has one more.
    blocks: int = 2
    #: Levels that attend, 0 being that of pixels.
    attention_levels: tuple[int, ...] = (3,)
    latent_channels: int = 256
    code_dim: int = 256
    num_codes: int = 8192
    #: True if the encoder is there.
    encoder: bool = True

    @property
    def code_size(self) -> int:
        """Pixels a side that one code describes."""
        return int(2 ** (len(self.multipliers) - 1))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> VQGANConfig:
        """Read the dimensions off the tensors.

        Raises:
            CheckpointError: they are not those of such a network.
        """
        try:
            return cls(**_dimensions(state))
        except KeyError as error:
            raise CheckpointError(f"no image codes network: the entry {error.args[0]} is missing") from None


def _dimensions(state: Mapping[str, Tensor]) -> dict[str, Any]:
    channels = state["decoder.conv_out.weight"].shape[1]
    levels = _count(state, r"decoder\.up\.(\d+)\.")
    widths = [state[f"decoder.up.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    return {
        "channels": channels,
        "multipliers": tuple(width // channels for width in widths),
        "blocks": _count(state, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
        "attention_levels": tuple(i for i in range(levels) if f"decoder.up.{i}.attn.0.q.weight" in state),
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "code_dim": state["quantize.embed.weight"].shape[1],
        "num_codes": state["quantize.embed.weight"].shape[0],
        "encoder": any(name.startswith(ENCODER_PREFIXES) for name in state),
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different numbers at the one place of ``pattern``."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def needed_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a training checkpoint's state that belong to the network; a loss's networks stay behind.

    Raises:
        CheckpointError: entries are missing or of other shapes.
    """
    config = VQGANConfig.from_state(state)
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in VQGAN(config).state_dict().items()}
    missing = [name for name in expected if name not in state]
    if missing:
        raise CheckpointError(f"{len(missing)} entries of the image codes network are missing, {missing[0]} first")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise CheckpointError(f"{name} is {list(state[name].shape)} instead of {list(shape)}")
    return {name: state[name] for name in expected}


class Norm(nn.GroupNorm):
    """GroupNorm of 32 groups, computed in float32 whatever comes in."""

    def __init__(self, channels: int) -> None:
        if channels % NORM_GROUPS:
            raise CheckpointError(f"{channels} channels are not a multiple of {NORM_GROUPS}, the groups of a norm")
        super().__init__(NORM_GROUPS, channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to the same shape."""
        if x.dtype in (torch.float16, torch.bfloat16):
            weight, bias = self.weight.float(), self.bias.float()
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)
        return super().forward(x)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each behind a norm and SiLU, beside a residual path."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm1: Norm = Norm(in_channels)
        self.conv1: nn.Conv2d = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2: Norm = Norm(channels)
        self.conv2: nn.Conv2d = nn.Conv2d(channels, channels, 3, padding=1)
        self.nin_shortcut: nn.Conv2d | nn.Identity = (
            nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, channels, h, w]."""
        inner = self.conv1(F.silu(self.norm1(x), inplace=not self.training))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(inner), inplace=not self.training))


class SpatialAttention(nn.Module):
    """One head of attention over all positions of a level, beside a residual path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm: Norm = Norm(channels)
        self.q: nn.Conv2d = nn.Conv2d(channels, channels, 1)
        self.k: nn.Conv2d = nn.Conv2d(channels, channels, 1)
        self.v: nn.Conv2d = nn.Conv2d(channels, channels, 1)
        self.proj_out: nn.Conv2d = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to the same shape."""
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, 1, h * w, C]
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Upsample(nn.Module):
    """Twice the sides by the nearest neighbour, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, C, 2 h, 2 w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Half the sides by a convolution, with one row and column of zeros behind the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, C, h / 2, w / 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Middle(nn.Module):
    """Block, attention and block at the level of codes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1: ResidualBlock = ResidualBlock(channels, channels)
        self.attn_1: SpatialAttention = SpatialAttention(channels)
        self.block_2: ResidualBlock = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks, each with attention behind it where the level attends, and what leads to the next level."""

    def __init__(self, in_channels: int, channels: int, blocks: int, attends: bool) -> None:
        super().__init__()
        self.block: nn.ModuleList = nn.ModuleList(
            ResidualBlock(channels if i else in_channels, channels) for i in range(blocks)
        )
        self.attn: nn.ModuleList = nn.ModuleList(SpatialAttention(channels) for _ in range(blocks if attends else 0))
        self.upsample: nn.Module = nn.Identity()
        self.downsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to the next level's shape."""
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return self.downsample(self.upsample(x))


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.channels * times for times in config.multipliers]
        self.conv_in: nn.Conv2d = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid: Middle = Middle(widths[-1])
        self.up: nn.ModuleList = nn.ModuleList()
        for level, width in enumerate(widths):
            above = widths[min(level + 1, len(widths) - 1)]
            part = Level(above, width, config.blocks + 1, level in config.attention_levels)
            if level:
                part.upsample = Upsample(width)
            self.up.append(part)
        self.norm_out: Norm = Norm(widths[0])
        self.conv_out: nn.Conv2d = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """``latents`` [B, C, h, w] to pixels [B, 3, h * code_size, w * code_size], black at -1 and white at 1."""
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Encoder(nn.Module):
    """Pixels to latents."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.channels * times for times in config.multipliers]
        self.conv_in: nn.Conv2d = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down: nn.ModuleList = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else config.channels
            part = Level(before, width, config.blocks, level in config.attention_levels)
            if level < len(widths) - 1:
                part.downsample = Downsample(width)
            self.down.append(part)
        self.mid: Middle = Middle(widths[-1])
        self.norm_out: Norm = Norm(widths[-1])
        self.conv_out: nn.Conv2d = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` [B, 3, H, W] from -1 to 1 to latents [B, C, H / code_size, W / code_size]."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class CodeBook(nn.Module):
    """Vectors of the codes, and the scores of all codes for a latent."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.embed: nn.Embedding = nn.Embedding(config.num_codes, config.code_dim)
        if config.encoder:
            self.proj: nn.Conv2d = nn.Conv2d(config.latent_channels, config.num_codes, 1)


class VQGAN(nn.Module):
    """Codes to pictures and, where the encoder is there, pictures to codes."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.quantize: CodeBook = CodeBook(config)
        self.post_quant_conv: nn.Conv2d = nn.Conv2d(config.code_dim, config.latent_channels, 1)
        self.decoder: Decoder = Decoder(config)
        if config.encoder:
            self.encoder: Encoder = Encoder(config)
            self.quant_conv: nn.Conv2d = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels [B, 3, h * code_size, w * code_size] from -1 to 1, some beyond, of ``codes`` [B, h, w].

        Raises:
            OFAError: a code is not one.
        """
        if codes.dim() != 3 or not codes.numel():
            raise OFAError(f"codes are of shape {list(codes.shape)} instead of [pictures, rows, columns]")
        least, most = int(codes.min()), int(codes.max())
        if least < 0 or most >= self.config.num_codes:
            odd = least if least < 0 else most
            raise OFAError(f"code {odd} is not one of the {self.config.num_codes:,} from 0 on")
        latents = self.post_quant_conv(self.quantize.embed(codes.long()).permute(0, 3, 1, 2))
        return self.decoder(latents.contiguous(memory_format=torch.channels_last))

    def code_scores(self, pixels: Tensor) -> Tensor:
        """Scores [B, K, h, w] of the codes for ``pixels`` [B, 3, H, W] from -1 to 1.

        Raises:
            OFAError: the encoder is not there, or a side is not a multiple of ``code_size``.
        """
        if not self.config.encoder:
            raise OFAError("this network has no encoder, so it makes pictures of codes only")
        if pixels.shape[-1] % self.config.code_size or pixels.shape[-2] % self.config.code_size:
            sides = " × ".join(map(str, reversed(pixels.shape[-2:])))
            raise OFAError(f"pixels are {sides}; sides are multiples of {self.config.code_size}, one code's pixels")
        return self.quantize.proj(self.quant_conv(self.encoder(pixels)))

    def encode(self, pixels: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Codes [B, h, w] of ``pixels`` [B, 3, H, W] from -1 to 1.

        With ``noise`` they are drawn as the original draws them, with a Gumbel variable added to each score; without,
        they are the best.
        """
        scores = self.code_scores(pixels).float()
        if noise is not None:
            exponential = torch.empty(scores.shape).exponential_(generator=noise)
            scores = scores - exponential.clamp(min=torch.finfo(torch.float32).tiny).log().to(scores.device)
        return scores.argmax(1)


def decode_tiled(vqgan: VQGAN, codes: Tensor, tile: int, overlap: int | None = None) -> Tensor:
    """Pixels of ``codes`` [B, h, w] computed in tiles of at most ``tile`` codes a side, for grids beyond memory.

    Neighbours share ``overlap`` codes (a quarter of a tile), where they fade into each other. Norms and attention see a
    tile each, so this is close to :meth:`VQGAN.decode` but not equal, except where one tile holds all.

    Raises:
        OFAError: a tile is not larger than the overlap.
    """
    overlap = tile // 4 if overlap is None else overlap
    if not 0 <= overlap < tile:
        raise OFAError(f"tiles of {tile} codes cannot overlap by {overlap}")
    size = vqgan.config.code_size
    batch, rows, columns = codes.shape
    total = torch.zeros(batch, 3, rows * size, columns * size)
    weight = torch.zeros(1, 1, rows * size, columns * size)
    for top in _starts(rows, tile, overlap):
        for left in _starts(columns, tile, overlap):
            part = vqgan.decode(codes[:, top : top + tile, left : left + tile]).float().cpu()
            fade = _fade(part.shape[-2], overlap * size)[:, None] * _fade(part.shape[-1], overlap * size)
            place = (
                ...,
                slice(top * size, top * size + part.shape[-2]),
                slice(left * size, left * size + part.shape[-1]),
            )
            total[place] += part * fade
            weight[place] += fade
    return total / weight


def _starts(length: int, tile: int, overlap: int) -> Sequence[int]:
    """Beginnings of tiles that together cover ``length``; the last one ends at the end."""
    if length <= tile:
        return (0,)
    starts = list(range(0, length - tile, tile - overlap))
    return [*starts, length - tile]


def _fade(length: int, overlap: int) -> Tensor:
    """Weights [length] that rise from the ends over ``overlap`` places and are never zero."""
    places = torch.arange(length)
    return torch.minimum(places, places.flip(0)).add(1).clamp(max=overlap + 1) / (overlap + 1)


def to_pixels(decoded: Tensor) -> Tensor:
    """Bytes [B, h, w, 3] in uint8 of what was ``decoded`` [B, 3, h, w] from -1 to 1; cut off, not rounded."""
    return (255 * (decoded.float().clamp(-1, 1) + 1) / 2).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
