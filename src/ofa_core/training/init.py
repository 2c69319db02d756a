"""New models, and beginnings from which a small one learns sooner than from random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor

from ..checkpoint.model_dir import make_tokenizer, read_safetensors
from ..config import OFAConfig, merged
from ..errors import OFAError, first_problem
from ..model.attention import Attention
from ..model.ofa import OFAModel
from ..text import Tokenizer, small_vocabulary_dir
from .setting_tables import NewModelSettings

#: Entries of a stem's file that are not the stem's: what it says of patches, and the words it says it in.
LABELS = "words"


def make_model(new: NewModelSettings, changes: dict[str, object]) -> tuple[OFAModel, Tokenizer]:
    """A model as ``new`` wants it, with ``changes`` to its configuration, and its tokenizer.

    Raises:
        OFAError: the configuration or the stem's file is wrong.
    """
    directory = small_vocabulary_dir() if new.vocabulary == "small" else new.vocabulary
    fields = merged(new.config, changes)
    tokenizer = make_tokenizer(directory, make_config(fields).task)
    model = OFAModel(make_config({**fields, "vocab_size": len(tokenizer)}))
    model.initialize(new.init_std)
    if new.smooth_bins:
        smooth_bins(model, tokenizer)
    if new.smooth_positions is not None:
        smooth_positions(model, new.smooth_positions)
    if new.stem is not None:
        load_stem(model, tokenizer, new.stem)
    if new.keys_from_queries:
        keys_from_queries(model)
    return model, tokenizer


def make_config(fields: dict[str, object]) -> OFAConfig:
    """The configuration of these fields, or an OFAError that says which is wrong."""
    try:
        return OFAConfig.model_validate(fields)
    except ValidationError as error:
        raise OFAError(f"the model's configuration is wrong: {first_problem(error)}") from None


def load_stem(model: OFAModel, tokenizer: Tokenizer, path: Path) -> None:
    """Load the image stem from a file; where that tells what it says of patches, let them begin as these words.

    Raises:
        OFAError: the file cannot be read or is of another stem.
    """
    state = read_safetensors(path)
    said = {name: state.pop(name) for name in [name for name in state if name.startswith(f"{LABELS}.")]}
    try:
        model.encoder.image_stem.load_state_dict(state)
    except RuntimeError as error:
        raise OFAError(f"{path} is no stem of this model: {' '.join(str(error).split())[:200]}") from None
    if said:
        with safe_open(path, "pt") as file:
            words = json.loads(file.metadata()[LABELS])
        image_proj_from_labels(model, tokenizer, words, said[f"{LABELS}.weight"], said[f"{LABELS}.bias"])


@torch.no_grad()
def image_proj_from_labels(
    model: OFAModel, tokenizer: Tokenizer, words: list[str], weight: Tensor, bias: Tensor
) -> None:
    """Let a patch begin as the sum of the words that it shows, each as long as its score, so that text can find it.

    ``weight`` [L, 1024] and ``bias`` [L] give the scores of ``words`` [L]. Scores without a word (``""``) get
    directions of their own.
    """
    directions = torch.randn(len(words), model.config.embed_dim)
    for row, word in enumerate(words):
        if word:
            directions[row] = model.token_embedding.weight[tokenizer.encode(f" {word}")].mean(0)
    directions = directions / directions.norm(dim=1, keepdim=True)
    projection = model.encoder.image_proj
    projection.weight.copy_(directions.t() @ weight)
    projection.bias.copy_(directions.t() @ bias)


@torch.no_grad()
def keys_from_queries(model: OFAModel) -> None:
    """Let keys begin as queries do, so that what is alike attends to each other: a word to the patches that show it."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.k_proj.load_state_dict(module.q_proj.state_dict())


@torch.no_grad()
def smooth_bins(model: OFAModel, tokenizer: Tokenizer) -> None:
    """Embed the bins as mixtures of slow waves along the axis, as large as other embeddings are."""
    vocabulary = tokenizer.vocabulary
    vectors = _slow_waves(vocabulary.num_bins, model.config.embed_dim)
    weight = model.token_embedding.weight
    weight[vocabulary.bin_start : vocabulary.bin_end] = vectors * weight.std()


@torch.no_grad()
def smooth_positions(model: OFAModel, std: float) -> None:
    """Make one half of each patch's position vector say its row and the other its column, as mixtures of slow waves."""
    side, dim = model.config.image_bucket_size, model.config.embed_dim
    rows, columns = _slow_waves(side, dim // 2), _slow_waves(side, dim - dim // 2)
    grid = torch.cat([rows[:, None].expand(-1, side, -1), columns[None].expand(side, -1, -1)], dim=2)
    model.encoder.image_positions.weight[1:] = grid.flatten(0, 1) * std


def _slow_waves(count: int, dim: int, waves: int = 16) -> Tensor:
    """Vectors [count, dim] of variance 1 that change slowly from one to the next."""
    place = torch.linspace(0, math.pi, count)[:, None]
    number = torch.arange(1, waves + 1)
    basis = torch.cat([torch.cos(number * place) / number, torch.sin(number * place) / number], dim=1)
    vectors = basis @ torch.randn(2 * waves, dim)
    return vectors / vectors.std()
