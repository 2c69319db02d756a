"""Workloads to time: each part of the model and each task, on random weights, pictures and texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ofa_core import GenerationOptions, OFAConfig, OFAModel, generate, score_candidates
from ofa_core.checkpoint.model_dir import empty_model, read_safetensors, unshare_tensors
from ofa_core.model.encoder import ImageFeatures
from ofa_core.text.vocabulary import BOS, EOS, PAD

#: Side in pixels of each size's pictures.
IMAGE_SIZES = {"tiny": 256}
IMAGE_SIZE = 512
#: Tokens of a question, ``<s>`` and ``</s>`` included.
SOURCE_TOKENS = 12
#: Ids that random texts are made of: all but the special ones.
FIRST_ID = 4

GROUNDING = GenerationOptions(num_beams=5, min_new_tokens=4, max_new_tokens=4, no_repeat_ngram_size=3)
CAPTION = GenerationOptions(num_beams=5, min_new_tokens=16, max_new_tokens=16, no_repeat_ngram_size=3)
ORACLE_ANSWERS = [[100], [101], [102]]
CANDIDATES = 3129
DIALOG_TURNS = 8
#: Tokens that a question and its answer add to a dialog.
TURN_TOKENS = 12


@dataclass(frozen=True, eq=False)
class Inputs:
    """A model and a batch to give it."""

    model: OFAModel
    images: Tensor  # [B, 3, side, side]
    features: ImageFeatures  # what the stem makes of them
    tokens: Tensor  # [B, N]
    dialogs: list[Tensor]  # the source after each turn, [B, N'] each
    candidates: list[list[int]]


def make_model(size: str, **changes: object) -> OFAModel:
    """A model of random weights, ready to answer."""
    torch.manual_seed(1)
    return OFAModel(OFAConfig.preset(size, **changes)).eval().requires_grad_(False)


def mapped(model: OFAModel, path: Path) -> OFAModel:
    """The same model with its weights mapped from a file at ``path``, as :func:`ofa_core.load` has them."""
    save_file(unshare_tensors(model.state_dict()), path)
    other = empty_model(model.config)
    other.load_state_dict(read_safetensors(path), assign=True)
    return other.eval().requires_grad_(False)


@torch.inference_mode()
def make_inputs(model: OFAModel, batch: int, side: int) -> Inputs:
    """Random pictures and texts; all texts of a batch are of one length but the last, which is a third shorter."""
    torch.manual_seed(2)
    vocabulary = model.config.vocab_size
    images = torch.randn(batch, 3, side, side).to(model.device, model.dtype)
    whole = _texts(batch, SOURCE_TOKENS + DIALOG_TURNS * TURN_TOKENS, vocabulary)
    dialogs = [_cut(whole, SOURCE_TOKENS + turn * TURN_TOKENS) for turn in range(1, DIALOG_TURNS + 1)]
    tokens = _cut(whole, SOURCE_TOKENS)
    device = model.device
    return Inputs(
        model,
        images,
        model.image_features(images),
        tokens.to(device),
        [dialog.to(device) for dialog in dialogs],
        make_candidates(CANDIDATES, vocabulary),
    )


def _texts(batch: int, length: int, vocabulary: int) -> Tensor:
    tokens = torch.randint(FIRST_ID, vocabulary, (batch, length))
    tokens[:, 0] = BOS
    return tokens


def _cut(texts: Tensor, length: int) -> Tensor:
    texts = texts[:, :length].clone()
    texts[:, -1] = EOS
    if len(texts) > 1:  # padding, as most batches have it
        short = max(2, length * 2 // 3)
        texts[-1, short - 1] = EOS
        texts[-1, short:] = PAD
    return texts


def make_candidates(number: int, vocabulary: int) -> list[list[int]]:
    """Answers of 1 to 3 tokens that often share their first ones, like the answers of VQA."""
    chance = random.Random(3)
    first = [chance.randrange(FIRST_ID, vocabulary) for _ in range(max(1, number // 2))]
    second = [chance.randrange(FIRST_ID, vocabulary) for _ in range(max(1, number // 4))]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < number:
        length = chance.choices((1, 2, 3), (60, 30, 10))[0]
        answer = [chance.choice(first)]
        if length > 1:
            answer += [chance.choice(second)]
        if length > 2:
            answer += [chance.randrange(FIRST_ID, vocabulary)]
        if length == 1 and tuple(answer) in found:
            answer.append(chance.choice(second))
        found[tuple(answer)] = None
    return [list(answer) for answer in found]


def _stem(inputs: Inputs) -> object:
    return inputs.model.image_features(inputs.images)


def _encode(inputs: Inputs) -> object:
    return inputs.model.encode(inputs.tokens, inputs.images)


def _grounding(inputs: Inputs) -> object:
    return generate(inputs.model, inputs.tokens, inputs.images, GROUNDING)


def _caption(inputs: Inputs) -> object:
    return generate(inputs.model, inputs.tokens, inputs.images, CAPTION)


def _oracle(inputs: Inputs) -> object:
    return score_candidates(inputs.model, inputs.tokens, inputs.images, ORACLE_ANSWERS)


def _candidates(inputs: Inputs) -> object:
    return score_candidates(inputs.model, inputs.tokens, inputs.images, inputs.candidates, "prev_output")


def _dialog(inputs: Inputs) -> object:
    features = inputs.model.image_features(inputs.images)
    return [generate(inputs.model, tokens, features, GROUNDING) for tokens in inputs.dialogs]


def _turn(inputs: Inputs) -> object:
    """The first turn of a dialog whose picture the stem has looked at before."""
    return generate(inputs.model, inputs.dialogs[0], inputs.features, GROUNDING)


#: Workloads by name; all of them run without gradients.
WORKLOADS: dict[str, Callable[[Inputs], object]] = {
    "stem": _stem,
    "encode": _encode,
    "grounding": _grounding,
    "caption": _caption,
    "oracle": _oracle,
    "candidates": _candidates,
    "dialog": _dialog,
    "turn": _turn,
}
