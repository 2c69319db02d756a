"""``encode`` and a decoding step can leave Python: exported for any lengths, they compute what the model does."""

from __future__ import annotations

import pytest
import torch
from reference import TOLERANCE, sources, tiny_model
from torch import Tensor, nn
from torch.export import Dim, export

from ofa_core import DecoderCache, Memory, OFAModel, optimized
from ofa_core.model.kv_cache import LayerCache
from ofa_core.text.vocabulary import BOS, PAD


class Encode(nn.Module):
    """Tokens [B, N] and pixels to states, padding and positions."""

    def __init__(self, model: OFAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        memory = self.model.encode(tokens, images)
        return memory.states, memory.padding, memory.positions


class Step(nn.Module):
    """One step with the keys and values of the positions before it: logits, and all keys and values so far."""

    def __init__(self, model: OFAModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, states: Tensor, padding: Tensor, positions: Tensor, prefix: Tensor, own: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        layers = [LayerCache(own=(own[2 * i], own[2 * i + 1])) for i in range(len(own) // 2)]
        cache = DecoderCache(layers, positions=torch.arange(own[0].shape[2]))
        logits = self.model.decode(Memory(states, padding, positions), prefix, cache)
        return logits, [part for layer in cache.layers for part in layer.own or ()]


@pytest.fixture(params=[False, True], ids=["plain", "optimized"])
def model(request: pytest.FixtureRequest) -> OFAModel:
    made = tiny_model(30, embed_dim=32, num_heads=4)
    return optimized(made) if request.param else made


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


@torch.no_grad()
def test_encode_is_exported_for_any_batch_and_length(model: OFAModel) -> None:
    example = (sources(5, 7), torch.randn(2, 3, 64, 64))
    shapes = ({0: Dim("batch", min=2, max=64), 1: Dim("length", min=2, max=512)}, {0: Dim("batch", min=2, max=64)})
    program = export(Encode(model), example, dynamic_shapes=shapes)
    for lengths in ((5, 7), (9, 3, 4, 12)):
        tokens, images = sources(*lengths), torch.randn(len(lengths), 3, 64, 64)
        states, padding, positions = program.module()(tokens, images)
        memory = model.encode(tokens, images)
        assert_close(states, memory.states)
        assert_close(positions, memory.positions)
        assert torch.equal(padding[:, 16:], tokens.eq(PAD))


@torch.no_grad()
def test_a_step_is_exported_for_any_length(model: OFAModel) -> None:
    memory = model.encode(sources(5, 7))
    cache, prefix = DecoderCache(), torch.tensor([[BOS, 5, 6], [BOS, 7, 8]])
    model.decode(memory, prefix, cache)
    own = [part for layer in cache.layers for part in layer.own or ()]
    longer = torch.cat([prefix, torch.tensor([[9], [10]])], dim=1)
    padding = torch.zeros(memory.states.shape[:2], dtype=torch.bool) if memory.padding is None else memory.padding
    before = Dim("before", min=1, max=500)
    shapes = (None, None, None, {1: before + 1}, [{2: before}] * len(own))
    program = export(Step(model), (memory.states, padding, memory.positions, longer, own), dynamic_shapes=shapes)
    for token in (torch.tensor([[9], [10]]), torch.tensor([[11], [12]]), torch.tensor([[13], [14]])):
        prefix = torch.cat([prefix, token], dim=1)
        logits, own = program.module()(memory.states, padding, memory.positions, prefix, own)
        assert_close(logits, model.decode(memory, prefix)[:, -1:])
