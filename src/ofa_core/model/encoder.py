"""The encoder: patches and text in, states out, with biases from where everything stands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import OFAConfig
from ..errors import OFAError
from ..vision.resnet import OUT_CHANNELS, ResNetStem
from .layers import EncoderLayer, PrefixPrompt
from .position_bias import (
    PATCH_SIZE,
    AbsoluteBias,
    Grid,
    LayerBias,
    RelativeBias,
    image_buckets,
    num_image_buckets,
    num_token_buckets,
    patch_position_ids,
    token_buckets,
)


@dataclass(frozen=True)
class ImageFeatures:
    """Features that the image stem made of a batch of pictures; the model takes them in place of pixels."""

    patches: Tensor  # [B, P, 1024], row by row
    grid: tuple[int, int]  # rows and columns, P = rows * columns
    #: Places [B, P] in the grid of the patches of each sample, where these are some of all; None: all, row by row.
    places: Tensor | None = None

    def select(self, samples: Tensor) -> ImageFeatures:
        """The samples ``samples`` (indices into B)."""
        places = None if self.places is None else self.places.index_select(0, samples)
        return ImageFeatures(self.patches.index_select(0, samples), self.grid, places)

    def sample_patches(self, count: int) -> ImageFeatures:
        """``count`` patches of each sample, drawn without replacement and for each sample anew.

        Raises:
            OFAError: there are fewer.
        """
        batch, patches, _ = self.patches.shape
        if not 1 <= count <= patches:
            raise OFAError(f"{count} patches cannot be drawn of pictures that have {patches}")
        drawn = torch.rand(batch, patches, device=self.patches.device).argsort(1)[:, :count]
        places = drawn if self.places is None else self.places.gather(1, drawn)
        return ImageFeatures(self.patches.take_along_dim(drawn[..., None], 1), self.grid, places)


@dataclass(frozen=True)
class Memory:
    """The encoder's output, which the decoder reads: states, which of them are padding, and where they stand."""

    states: Tensor  # [B, S, D]
    padding: Tensor | None  # [B, S], True at padding; None where it is known that there is none
    positions: Tensor  # [S, D], normalised position vectors, the same for all samples; [B, S, D] where they are not

    def select(self, samples: Tensor) -> Memory:
        """The samples ``samples`` (indices into B)."""
        padding = None if self.padding is None else self.padding.index_select(0, samples)
        positions = self.positions if self.positions.dim() == 2 else self.positions.index_select(0, samples)
        return Memory(self.states.index_select(0, samples), padding, positions)


class Encoder(nn.Module):
    """Image stem, embedding of patches and text, and the stack of encoder layers."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads, layers = config.embed_dim, config.num_heads, config.encoder_layers
        self.image_stem: ResNetStem = ResNetStem(config.stem_depths, config.stem_drop_path)
        self.image_proj: nn.Linear = nn.Linear(OUT_CHANNELS, dim)
        self.text_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.image_norm: nn.LayerNorm | nn.Identity = nn.LayerNorm(dim) if config.image_layernorm else nn.Identity()
        self.type_embedding: nn.Embedding | None = nn.Embedding(2, dim) if config.type_embedding else None
        self.dropout: nn.Dropout = nn.Dropout(config.dropout)

        self.text_positions: nn.Embedding = nn.Embedding(config.max_source_positions + 2, dim)
        self.image_positions: nn.Embedding = nn.Embedding(config.image_bucket_size**2 + 1, dim)
        self.text_position_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.image_position_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.position_bias: AbsoluteBias = AbsoluteBias(dim, heads, config.attention_scale)
        self.text_relative: RelativeBias = RelativeBias(layers, num_token_buckets(config.token_bucket_size), heads)
        self.image_relative: RelativeBias = RelativeBias(layers, num_image_buckets(config.image_bucket_size), heads)

        rates = torch.linspace(0, config.encoder_drop_path, layers, device="cpu").tolist()
        self.layers: nn.ModuleList = nn.ModuleList(EncoderLayer(config, rate) for rate in rates)
        self.prompt: PrefixPrompt | None = (
            PrefixPrompt(config, layers, config.encoder_prompt) if config.encoder_prompt else None
        )
        self.final_norm: nn.LayerNorm = nn.LayerNorm(dim)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Run the image stem on normalised ``images`` [B, 3, h, w]."""
        if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise OFAError(f"images must be [batch, 3, height, width], not {list(images.shape)}")
        limit = self.config.image_bucket_size * PATCH_SIZE
        if max(images.shape[2:]) > limit:
            raise OFAError(f"images may be up to {limit} pixels a side, not {images.shape[2]} × {images.shape[3]}")
        stem, dtype = self.image_stem.conv1.weight, self.image_proj.weight.dtype
        features = self.image_stem(images.to(stem.device, stem.dtype)).to(dtype)
        return ImageFeatures(features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3]))

    def forward(
        self, text: Tensor, text_padding: Tensor | None, image: ImageFeatures | None, image_mask: Tensor | None
    ) -> Memory:
        """Encode text and, where given, pictures.

        Args:
            text: embedded tokens [B, N, D].
            text_padding: [B, N], True at padding; None where there is none.
            image: features of the pictures, or None for text alone.
            image_mask: [B], False for samples without a picture, all patches of which are padding; None for none.

        Returns:
            States of the patches, then of the text.

        Raises:
            OFAError: the text is longer than the model holds.
        """
        length = text.shape[1]
        if length > self.config.max_source_positions:
            raise OFAError(
                f"a source of {length} tokens is too long: this model holds {self.config.max_source_positions}"
            )
        grid = None if image is None else image.grid
        text_vectors, image_vectors = self.position_vectors(length, grid)
        places = None if image is None else image.places
        if image_vectors is not None and places is not None:
            image_vectors = image_vectors[places]  # [B, P, D]
        x, padding = self._embed(text, text_vectors, kind=0), text_padding
        if image is not None and image_vectors is not None:
            patches = self._embed(self.image_proj(image.patches), image_vectors, kind=1)
            x = torch.cat([patches, x], dim=1)  # [B, P + N, D]
            padding = _source_padding(text, text_padding, patches, image_mask)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0)

        positions = self.normalized_positions(text_vectors, image_vectors)
        layer_bias = self.layer_biases(positions, length, grid, places)
        prompts = None if self.prompt is None else self.prompt()
        for index, layer in enumerate(self.layers):
            x = layer(x, layer_bias(index), padding, None if prompts is None else prompts[index])
        return Memory(self.final_norm(x), padding, positions)

    def _embed(self, x: Tensor, vectors: Tensor, kind: int) -> Tensor:
        """Text (kind 0) or patches (kind 1), [B, ·, D], as they enter the first layer."""
        if self.config.entangle_encoder_positions:
            x = x + vectors
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[kind]
        return self.dropout((self.text_norm, self.image_norm)[kind](x))

    def position_vectors(self, length: int, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """Position vectors [N, D] of the text and [P, D] of the patches, before normalisation."""
        text = self.text_positions.weight[:length]
        if grid is None:
            return text, None
        rows, columns = grid
        side = self.config.orig_patch_image_size // PATCH_SIZE
        if not (self.config.interpolate_position and rows * columns > side * side):
            return text, self.image_positions(self._patch_ids(rows, columns))
        original = self.image_positions(self._patch_ids(side, side)).t().reshape(1, -1, side, side)
        resized = F.interpolate(original, size=(rows, columns), mode="bilinear", align_corners=False)
        return text, resized.flatten(2)[0].t()

    def patch_buckets(self, grid: Grid, places: Tensor | None) -> Tensor | None:
        """Buckets of the offsets between patches, [P, P] or with ``places`` [B, P, P]; None without a picture."""
        if grid is None:
            return None
        ids = self._patch_ids(*grid) if places is None else self._patch_ids(*grid)[places]
        return image_buckets(ids, ids, self.config.image_bucket_size)

    def _patch_ids(self, rows: int, columns: int) -> Tensor:
        return patch_position_ids(rows, columns, self.config.image_bucket_size, self.image_positions.weight.device)

    def normalized_positions(self, text: Tensor, image: Tensor | None) -> Tensor:
        """Position vectors [S, D] as biases are computed from them, of those of :meth:`position_vectors`.

        Where ``image`` is [B, P, D], they are [B, S, D].
        """
        normed = self.text_position_norm(text)
        if image is None:
            return normed
        return torch.cat([self.image_position_norm(image), normed.expand(*image.shape[:-2], -1, -1)], dim=-2)

    def layer_biases(self, positions: Tensor, length: int, grid: Grid, places: Tensor | None = None) -> LayerBias:
        """The position bias of each layer: an absolute part, the same for all, and a relative one within each block.

        Args:
            positions: normalised position vectors [S, D], or [B, S, D] with ``places``.
            length: N, the length of the text.
            grid: rows and columns of patches, or None.
            places: [B, P], which places of the grid the patches of each sample have; None: all, row by row.

        Returns:
            A function from a layer's index to its bias [1, H, S, S], or [B, H, S, S] with ``places``.
        """
        absolute = self.position_bias(positions, self.position_bias.keys(positions))
        first_text = positions.shape[-2] - length
        at = torch.arange(length, device=positions.device)
        text_buckets = token_buckets(at, at, self.config.token_bucket_size, self.config.max_source_positions)
        patch_buckets = self.patch_buckets(grid, places)

        def bias(layer: int) -> Tensor:
            bias = absolute.clone()
            bias[..., first_text:, first_text:] += self.text_relative(layer, text_buckets)
            if patch_buckets is not None:
                self.add_patch_bias(bias[..., :first_text, :first_text], layer, patch_buckets, grid)
            return bias

        return bias

    def add_patch_bias(self, bias: Tensor, layer: int, buckets: Tensor, grid: Grid) -> None:
        """Add what a layer has learned of the offsets between patches to its ``bias`` [1 or B, H, P, P].

        Args:
            bias: is changed in place.
            layer: the layer's index.
            buckets: those of the offsets, [P, P] or [B, P, P].
            grid: rows and columns of patches, of which P are all or some.
        """
        bias += self.image_relative(layer, buckets)


def _source_padding(
    text: Tensor, text_padding: Tensor | None, patches: Tensor, image_mask: Tensor | None
) -> Tensor | None:
    """[B, P + N], True at padding of the text and at all patches of samples without a picture; None without any."""
    if text_padding is None and image_mask is None:
        return None
    if text_padding is None:
        text_padding = torch.zeros(text.shape[:2], dtype=torch.bool, device=text.device)
    if image_mask is None:
        absent = torch.zeros(patches.shape[:2], dtype=torch.bool, device=text.device)
    else:
        absent = ~image_mask.to(text.device, torch.bool)[:, None].expand(patches.shape[:2])
    return torch.cat([absent, text_padding], dim=1)
