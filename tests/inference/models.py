"""What tests of the faster model share: a model wide enough for oneDNN, inputs for it, and a copy made faster."""

from __future__ import annotations

import copy

import torch
from reference import TOLERANCE, sources, tiny_model
from torch import Tensor, nn

from ofa_core import OFAModel, optimized

VOCABULARY = 40


def batch(lengths: tuple[int, ...], seed: int = 0) -> Tensor:
    """Sources of these lengths, padded."""
    return sources(*lengths, vocabulary=VOCABULARY, seed=seed)


def images(count: int, height: int = 64, width: int = 96) -> Tensor:
    """Pixels of noise [count, 3, height, width]."""
    torch.manual_seed(5)
    return torch.randn(count, 3, height, width)


def plain_model() -> OFAModel:
    """A model whose products are large enough for oneDNN, with statistics that BatchNorm does not begin with."""
    model = tiny_model(VOCABULARY, embed_dim=64, ffn_dim=512, encoder_layers=2, num_heads=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for tables in (model.encoder.image_relative, model.encoder.text_relative, model.decoder.text_relative):
        for table in tables.parameters():
            nn.init.normal_(table)
    return model


def faster(model: OFAModel, **options: bool) -> OFAModel:
    """A copy of ``model`` made faster."""
    return optimized(copy.deepcopy(model), **options)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


@torch.inference_mode()
def answers(model: OFAModel) -> tuple[Tensor, Tensor]:
    """States [3, S, D] and logits [3, 6, V] of a batch with pictures."""
    memory = model.encode(batch((9, 5, 7)), images(3))
    return memory.states, model.decode(memory, batch((6, 6, 6), seed=1))


def assert_equal_models(first: OFAModel, second: OFAModel) -> None:
    for found, expected in zip(answers(first), answers(second), strict=True):
        assert_close(found, expected)
