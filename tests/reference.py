"""What tests share: the reference outputs, and models built from them through the shipped converter."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import synth
import torch
from PIL import Image
from torch import Tensor

from checkpoints_convert import config_from_fairseq, from_fairseq, to_fairseq
from checkpoints_convert.infer_config import arguments_of, task_of
from ofa_core import OFA, EncodedImage, GenerationOptions, Hypothesis, OFAConfig, OFAModel, TaskSettings, Tokenizer
from ofa_core.checkpoint.model_dir import empty_model, read_safetensors
from ofa_core.config import ClassificationHeadConfig, PromptConfig
from ofa_core.heads.pipeline import Pipeline
from ofa_core.inference.fast_model import optimized, plain
from ofa_core.text import small_vocabulary_dir
from ofa_core.text.vocabulary import BOS, EOS, PAD

ROOT = Path(__file__).parent.parent
#: Reference outputs that come with the project, and those that tests marked ``reference`` read: other cases of the same
#: form, in files of the same names, may stand in another directory.
OWN_GOLDEN = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("OFA_GOLDEN_DIR") or OWN_GOLDEN)
#: Third-party and large data that a tree laid out for CI has beside the repository.
SHARED = ROOT.parent / "shared"
#: Genuine training checkpoints, which are not part of the repository.
CHECKPOINTS = next(
    (path for path in (GOLDEN / "checkpoints", SHARED / "golden" / "checkpoints") if path.is_dir()),
    SHARED / "golden" / "checkpoints",
)

#: The largest absolute difference from the reference, by dtype. One place for all tests.
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.15, torch.float16: 0.03}
SCORE_TOLERANCE = 1e-4


def golden_path(name: str) -> Path:
    """A file of references; the project's own where the directory that was named has none of this name."""
    return next((path for path in (GOLDEN / name, OWN_GOLDEN / name) if path.is_file()), OWN_GOLDEN / name)


def golden(name: str) -> Any:
    return json.loads(golden_path(name).read_text())


def metric_golden(name: str) -> Any:
    """References of a published scorer, which stand in a folder of their own or beside the others."""
    places = (GOLDEN / "metrics" / name, GOLDEN / name, OWN_GOLDEN / "metrics" / name)
    return json.loads(next(path for path in places if path.is_file()).read_text(encoding="utf-8"))


def golden_arrays(name: str) -> dict[str, Tensor]:
    with np.load(golden_path(name)) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def golden_cases(name: str) -> list[dict[str, Any]]:
    """The cases of a file of references; none where the directory that was named has no such file."""
    return json.loads((GOLDEN / name).read_text()) if (GOLDEN / name).is_file() else []


def forward_cases(directory: Path = GOLDEN) -> list[str]:
    """Names of the ``forward_*`` references in a directory."""
    return sorted(path.stem for path in directory.glob("forward_*.json"))


def fairseq_state(shapes: Mapping[str, list[int]], salt: str, *, for_generation: bool = False) -> dict[str, Tensor]:
    """The reference weights by fairseq's names; BatchNorm's counters, which carry nothing, are zero."""
    synthetic = synth.synth_state({k: tuple(v) for k, v in shapes.items()}, salt, for_generation=for_generation)
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in synthetic.items()}
    counters = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    return state | counters


def reference_model(case: Mapping[str, Any], salt: str | None = None, *, for_generation: bool = False) -> OFAModel:
    """The model of a ``forward_*.json``, made by the shipped converter."""
    meta = case["meta"]
    return _converted(fairseq_state(case["shapes"], salt or meta["salt"], for_generation=for_generation), meta["args"])


def _converted(state: dict[str, Tensor], arguments: Mapping[str, Any]) -> OFAModel:
    config = config_from_fairseq(state, arguments)
    model = empty_model(config)
    model.load_state_dict(from_fairseq(state, config), assign=True)
    return model.eval().requires_grad_(False)


def mapped_reference_model(
    case: Mapping[str, Any], path: Path, salt: str | None = None, *, for_generation: bool = False
) -> OFAModel:
    """As :func:`reference_model`, with its weights in a file at ``path`` that is mapped: nothing is held twice."""
    shapes = {name: tuple(shape) for name, shape in case["shapes"].items()}
    stored = {name: shape for name, shape in shapes.items() if _is_stored(name)}
    _write_synthetic(path, stored, salt or case["meta"]["salt"], for_generation)
    state = read_safetensors(path)
    state |= {name: state[synth.TIED[name]] for name in shapes if name in synth.TIED}
    state |= {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    return _converted(state, case["meta"]["args"])


def _is_stored(name: str) -> bool:
    return name.rsplit(".", 1)[-1] not in synth.COMPUTED and name not in synth.TIED


def _write_synthetic(path: Path, shapes: Mapping[str, tuple[int, ...]], salt: str, for_generation: bool) -> None:
    """Write weights in safetensors' format one after the other, two at a time."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file, ThreadPoolExecutor(2) as pool:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()

        def write(name: str) -> None:
            values = synth.synth_state({name: shapes[name]}, salt, for_generation=for_generation)[name]
            os.pwrite(file.fileno(), np.ascontiguousarray(values), 8 + len(text) + header[name]["data_offsets"][0])

        list(pool.map(write, shapes))


def generation_model(salt: str, nano: bool = True, *, optimize: bool = False) -> OFAModel:
    """A model of the generation cases: one object, which is made faster or plain again as it is asked for."""
    model = (_nano_generation_model if nano else _base_generation_model)(salt)
    return optimized(model) if optimize else plain(model)


@cache
def _nano_generation_model(salt: str) -> OFAModel:
    return reference_model(golden("forward_nano.json"), salt, for_generation=True)


@lru_cache(maxsize=1)
def _base_generation_model(salt: str) -> OFAModel:
    with tempfile.TemporaryDirectory() as directory:  # what is mapped stays readable
        path = Path(directory) / "model.safetensors"
        return mapped_reference_model(golden("forward_base.json"), path, salt, for_generation=True)


#: The reference's settings by our names.
SETTINGS = {
    "beam": "num_beams",
    "max_len_b": "max_new_tokens",
    "max_len_a": "max_new_tokens_per_source_token",
    "min_len": "min_new_tokens",
    "lenpen": "length_penalty",
    "unkpen": "unk_penalty",
    "temperature": "temperature",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "zero_shot": "constrain_after_softmax",
    "gen_code": "image_codes",
    "diverse_beam_groups": "num_beam_groups",
    "diverse_beam_strength": "diversity_penalty",
}


def options_of(settings: Mapping[str, Any]) -> GenerationOptions:
    settings = {name: value for name, value in settings.items() if name != "constraint_range"}
    normalize = not settings.pop("unnormalized", False)
    return GenerationOptions(normalize_scores=normalize, **{SETTINGS[name]: value for name, value in settings.items()})


def forget_large_models() -> None:
    """Let go of what :func:`generation_model` keeps."""
    _base_generation_model.cache_clear()


def reference_images(spec: Mapping[str, Any] | None) -> Tensor | None:
    """The pictures of a reference case as the model takes them, [B, 3, h, w]."""
    if spec is None:
        return None
    pictures = [synth.synth_image(spec["height"], spec["width"], seed) for seed in spec["seeds"]]
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def small_config(**changes: Any) -> OFAConfig:
    """A model of the small vocabulary that is quick on a CPU."""
    task = changes.pop("task", TaskSettings(image_size=64, max_image_size=64, code_dict_size=0))
    vocabulary = len(Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=task.code_dict_size))
    fields: dict[str, Any] = {
        "embed_dim": 32,
        "ffn_dim": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "num_heads": 4,
        "stem_depths": (1, 1, 1),
        "vocab_size": vocabulary,
        "task": task,
    }
    return OFAConfig(**(fields | changes))


def sources(*lengths: int, vocabulary: int = 30, seed: int | None = None) -> Tensor:
    """Random tokens [B, N] of these lengths between ``<s>`` and ``</s>``, padded; the seed is B if none is given."""
    torch.manual_seed(len(lengths) if seed is None else seed)
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(4, vocabulary, (length,))
        tokens[row, 0], tokens[row, length - 1] = BOS, EOS
    return tokens


def tiny_model(vocab_size: int = 9, seed: int = 0, **changes: Any) -> OFAModel:
    """A model of a few tokens whose answers depend strongly on what it is given."""
    sizes = {"embed_dim": 16, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "num_heads": 2}
    config = OFAConfig(**{**sizes, "stem_depths": (1, 1, 1), "vocab_size": vocab_size, **changes})
    torch.manual_seed(seed)
    model = OFAModel(config).eval().requires_grad_(False)
    for name, weights in model.named_parameters():
        if weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.3 if name == "token_embedding.weight" else 0.4)
    return model


def quick_config(**changes: Any) -> OFAConfig:
    """A small model whose position tables are small too, so that files of it are quick to write."""
    tables = {"image_bucket_size": 8, "max_source_positions": 128, "max_target_positions": 128, "token_bucket_size": 16}
    return small_config(**(tables | changes))


#: A model with every optional part.
EVERYTHING = quick_config(
    scale_resids=True,
    adapter_dim=5,
    encoder_prompt=PromptConfig(length=3, projection_dim=6),
    decoder_prompt=PromptConfig(length=2),
    classification_heads={"cls": ClassificationHeadConfig(num_classes=3, inner_dim=4)},
)


def random_state(config: OFAConfig, seed: int = 0) -> dict[str, Tensor]:
    """Reproducible weights by our names, the caller's own to change."""
    return {name: tensor.clone() for name, tensor in _drawn_state(config.model_dump_json(), seed).items()}


@lru_cache(maxsize=4)
def _drawn_state(config: str, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return OFAModel(OFAConfig.from_json(config)).state_dict()


def fairseq_content(config: OFAConfig, **changes: Any) -> dict[str, Any]:
    """What a fairseq checkpoint of random weights holds, with parts of it replaced by keyword."""
    cfg = {"_name": None, "model": argparse.Namespace(**arguments_of(config)), "task": task_of(config)}
    model = to_fairseq(random_state(config), config)
    return {"args": None, "cfg": cfg, "model": model, "extra_state": {}} | changes


def script(name: str) -> ModuleType:
    """scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(seed: int, height: int = 60, width: int = 90) -> Image.Image:
    """A picture of noise, different for every seed."""
    return Image.fromarray(synth.synth_image(height, width, seed))


def lively_ofa(seed: int = 0, tokenizer: Tokenizer | None = None, **changes: Any) -> OFA:
    """An OFA of the small vocabulary whose answers depend strongly on the picture and on the text."""
    tokenizer = tokenizer or Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OFAModel(small_config(vocab_size=len(tokenizer), **changes)).eval().requires_grad_(False)
        for name, weights in model.named_parameters():
            if weights.dim() == 2:
                torch.nn.init.normal_(weights, std=0.4 if name == "token_embedding.weight" else 0.3)
    return OFA(model, tokenizer)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a head asked of the model."""

    pictures: Sequence[Any]
    sources: Sequence[Sequence[int]]
    options: GenerationOptions | None = None
    constraints: Sequence[Any] = ()
    prefixes: Sequence[Sequence[int]] | None = None
    candidates: Sequence[Sequence[int]] | None = None
    decoder_prompt: str | None = None
    batch_size: int = 16


def scripted(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[int], scores: Sequence[float] = ()) -> list[Asked]:
    """Let every search find ``answers`` (ids), the best first, and make all candidates alike; returns what is asked."""
    beams = [Hypothesis(list(a), -float(i), list(scores) or [-0.1] * len(a)) for i, a in enumerate(answers)]
    asked: list[Asked] = []

    def run(
        self: Pipeline, pictures: Any, sources: Any, options: Any, constraints: Any = (), **more: Any
    ) -> list[list[Hypothesis]]:
        asked.append(Asked(pictures, sources, options, constraints, **more))
        return [beams] * len(sources)

    def score(
        self: Pipeline, pictures: Any, sources: Any, candidates: Any, decoder_prompt: Any, batch_size: int = 16
    ) -> list[list[float]]:
        given = {"candidates": candidates, "decoder_prompt": decoder_prompt, "batch_size": batch_size}
        asked.append(Asked(pictures, sources, **given))
        return [[1 / len(candidates)] * len(candidates)] * len(sources)

    monkeypatch.setattr(Pipeline, "run", run)
    monkeypatch.setattr(Pipeline, "score", score)
    return asked


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Results of a method are equal, their numbers to within ``tolerance``."""
    assert type(found) is type(expected)
    if isinstance(found, EncodedImage):
        assert found.image == expected.image
        assert_same(found.features, expected.features, tolerance)
    elif dataclasses.is_dataclass(found) and not isinstance(found, type):
        compared = [field.name for field in dataclasses.fields(found) if field.compare]
        assert_same(*([getattr(one, name) for name in compared] for one in (found, expected)), tolerance)
    elif isinstance(found, Mapping):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()), tolerance)
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right, tolerance)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, abs=tolerance)
    elif isinstance(found, Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    else:
        assert found == expected
