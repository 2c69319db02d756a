"""A description of a model directory for people: architecture, task, vocabulary, parameters, provenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..config import PRESETS, OFAConfig
from ..utils.input_files import parse_json, read_text_file
from .model_dir import PROVENANCE_FILE, WEIGHTS_FILE, empty_model, load_config, load_tokenizer, read_safetensors

#: Parts of a model, by the beginnings of their parameters' names; the longest that fits counts.
PARTS = {
    "token_embedding": "token embedding",
    "encoder": "encoder",
    "encoder.image_stem": "image stem",
    "decoder": "decoder",
    "classification_heads": "classification heads",
}
#: Fields that are told in lines of their own, or that every size sets.
_TOLD = {"task", "vocab_size", "classification_heads", *PRESETS["base"]}


@dataclass(frozen=True)
class Inspection:
    """The description of a model directory."""

    #: The released size that its dimensions are those of, None where they are no size's.
    size: str | None
    config: OFAConfig
    vocabulary: str
    dtypes: dict[str, int]  # tensors of each
    parameters: dict[str, int]  # of each part
    provenance: dict[str, Any]
    #: Differences from the released models.
    unusual: list[str]

    def lines(self) -> list[str]:
        """One fact a line."""
        config, task = self.config, self.config.task
        total = sum(self.parameters.values())
        came = ", ".join(f"{key} {self.provenance[key]}" for key in ("source", "source_kind") if key in self.provenance)
        return [
            f"architecture: {self.size or 'of its own'}, width {config.embed_dim}, feed-forward {config.ffn_dim}, "
            f"{config.encoder_layers}+{config.decoder_layers} layers, {config.num_heads} heads, "
            f"image stem {config.stem_depths}",
            f"task: {task.name}, pictures {task.image_size} × {task.image_size}, {task.num_bins} bins, "
            f"{task.code_dict_size} codes, decoder prompt {task.prompt_type or 'as the head has it'}",
            f"vocabulary: {self.vocabulary}",
            f"weights: {', '.join(f'{count} tensors of {dtype}' for dtype, count in self.dtypes.items())}",
            f"parameters: {total:,} ({', '.join(f'{part} {count:,}' for part, count in self.parameters.items())})",
            f"provenance: {came or 'not recorded'}",
            f"unusual: {'; '.join(self.unusual) or 'nothing'}",
        ]


def inspect_directory(directory: str | PathLike[str]) -> Inspection:
    """Read a model directory without loading it.

    Raises:
        CheckpointError: the directory or a file in it is missing or broken.
    """
    config = load_config(directory)
    tokenizer = load_tokenizer(directory, config)
    weights = read_safetensors(Path(directory) / WEIGHTS_FILE)
    dtypes = Counter(str(t.dtype).removeprefix("torch.") for t in weights.values() if t.is_floating_point())
    parameters: Counter[str] = Counter()
    for name, parameter in empty_model(config).named_parameters():
        part = max((prefix for prefix in PARTS if f"{name}.".startswith(f"{prefix}.")), key=len)
        parameters[PARTS[part]] += parameter.numel()
    return Inspection(
        size=config.size,
        config=config,
        vocabulary=f"{len(tokenizer):,} tokens ({tokenizer.kind})",
        dtypes=dict(dtypes),
        parameters=dict(parameters),
        provenance=_provenance(Path(directory)),
        unusual=_unusual(config, dtypes),
    )


def _provenance(directory: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text_file(directory / PROVENANCE_FILE))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _unusual(config: OFAConfig, dtypes: Counter[str]) -> list[str]:
    usual = OFAConfig.preset("base")
    found = [
        f"{name} is {getattr(config, name)}"
        for name in OFAConfig.model_fields
        if name not in _TOLD and "drop" not in name and getattr(config, name) != getattr(usual, name)
    ]
    heads = ", ".join(f"{name} of {head.num_classes} classes" for name, head in config.classification_heads.items())
    found += [f"classification heads: {heads}"] * bool(heads)
    found += [f"{len(config.task.extra_tokens)} extra tokens"] * bool(config.task.extra_tokens)
    found += [f"a vocabulary of {config.vocab_size:,} instead of {usual.vocab_size:,}"] * (
        config.vocab_size - len(config.task.extra_tokens) != usual.vocab_size
    )
    found += ["weights of several types"] * (len(dtypes) > 1)
    return found
