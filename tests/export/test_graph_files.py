"""The exported graphs compute what the model does, for any number of samples, beams and tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import TOLERANCE, sources, tiny_model
from torch import Tensor

from ofa_core import DecoderCache, Memory, OFAError, OFAModel
from ofa_core.export.graph_files import OPSET, checked_format, write_graphs
from ofa_core.inference.fast_model import optimized
from ofa_core.text.vocabulary import PAD

SIDE = 64
#: A graph: arrays in the order of its inputs to those of its outputs.
Run = Callable[[Sequence[Tensor]], list[Tensor]]


@pytest.fixture(scope="module")
def model() -> OFAModel:
    return tiny_model(30, embed_dim=32, num_heads=4)


@pytest.fixture(scope="module", params=["onnx", "torch"])
def folder(request: pytest.FixtureRequest, model: OFAModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "onnx":
        pytest.importorskip("onnxscript", reason="ONNX files need onnxscript")
        pytest.importorskip("onnxruntime", reason="ONNX files are computed by onnxruntime")
    directory = tmp_path_factory.mktemp(request.param)
    write_graphs(model, SIDE, directory, checked_format(request.param))
    return directory


def graph(folder: Path, name: str) -> Run:
    """A graph of either format."""
    program = folder / f"{name}.pt2"
    if program.is_file():
        module = torch.export.load(program).module()
        return lambda values: list(module(*nested(values, module)))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
    names = [put.name for put in session.get_inputs()]
    return lambda values: [
        torch.from_numpy(np.asarray(out))
        for out in session.run(None, {key: value.numpy() for key, value in zip(names, values, strict=True)})
    ]


def nested(values: Sequence[Tensor], module: Any) -> list[Any]:
    """The inputs of a program: behind the first three of a step, those of the cross-attention and the past."""
    half = 3 + (len(values) - 3) // 2
    return list(values) if len(values) <= 3 else [*values[:3], list(values[3:half]), list(values[half:])]


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


def remembered(model: OFAModel, tokens: Tensor, images: Tensor) -> Memory:
    with torch.no_grad():
        return model.encode(tokens, images)


def test_the_encoder_for_any_batch_and_length(model: OFAModel, folder: Path) -> None:
    encode = graph(folder, "encoder")
    for lengths in ((3,), (5, 7), (9, 3, 4, 12)):
        tokens, images = sources(*lengths), torch.randn(len(lengths), 3, SIDE, SIDE)
        states, padding, position_keys, *cross = encode([tokens, images])
        memory = remembered(model, tokens, images)
        assert_close(states, memory.states)
        assert torch.equal(padding[:, 16:], tokens.eq(PAD))
        assert_close(position_keys, model.decoder.cross_position_bias.keys(memory.positions))
        expected = [part for layer in model.decoder.layers for part in layer.cross_attn.keys_values(memory.states)]
        for found, one in zip(cross, expected, strict=True):
            assert_close(found, one)


@pytest.mark.parametrize(("samples", "beams", "steps"), [(1, 1, (1, 1, 1)), (1, 5, (1, 1)), (2, 3, (2, 1, 3))])
def test_steps_for_any_samples_beams_and_tokens(
    model: OFAModel, folder: Path, samples: int, beams: int, steps: tuple[int, ...]
) -> None:
    """The first one, too, whose cache is empty; each equals decoding the whole prefix at once."""
    tokens, images = sources(*range(4, 4 + samples)), torch.randn(samples, 3, SIDE, SIDE)
    memory = remembered(model, tokens, images)
    _, *fixed = graph(folder, "encoder")([tokens, images])
    step = graph(folder, "decoder")
    config = model.config
    past = [torch.zeros(samples, beams, config.num_heads, 0, config.head_dim) for _ in range(2 * config.decoder_layers)]
    prefix = torch.randint(4, 30, (samples, beams, sum(steps)))
    end = 0
    for new in steps:
        end += new
        logits, *past = step([prefix[..., end - new : end], *fixed, *past])
        with torch.no_grad():
            expected = model.decode(memory, prefix[..., :end].flatten(0, 1), DecoderCache())
        assert_close(logits, expected.unflatten(0, (samples, beams))[:, :, end - new :])


def test_the_set_of_operators_is_the_stated_one(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        import onnx

        assert {known.domain: known.version for known in onnx.load(path, load_external_data=False).opset_import} == {
            "": OPSET
        }


def test_a_model_is_what_it_was_afterwards(tmp_path: Path) -> None:
    made = optimized(tiny_model(30, embed_dim=32, num_heads=4))
    write_graphs(made, SIDE, tmp_path, "torch")
    assert {type(module).__module__.partition(".export")[1] for module in made.modules()} == {""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.pt2", "encoder.pt2"]


def test_wrong_formats() -> None:
    with pytest.raises(OFAError, match="a model is exported to onnx or torch, not to 'tensorrt'"):
        checked_format("tensorrt")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(OFAError, match=rf"ONNX files need {missing}: pip install onnx onnxscript"):
        checked_format("onnx")
