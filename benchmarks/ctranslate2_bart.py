"""A BART in CTranslate2 with the dimensions of an OFA: the same transformer in another engine.

CTranslate2 has no OFA. Its BART reads as many tokens as OFA's encoder has patches and tokens, says as many words from
as large a vocabulary, and has as many layers, heads and channels. It lacks what is OFA's own: the stem, biases of
position in every attention, and norms and factors within layers. Weights are random; times depend on shapes alone.
"""

from __future__ import annotations

from pathlib import Path

import ctranslate2
import numpy as np
import torch
from ctranslate2.specs import TransformerEncoderModelSpec, TransformerSpec
from ctranslate2.specs.common_spec import Activation
from torch import Tensor

from ofa_core import GenerationOptions, OFAConfig
from ofa_core.text.vocabulary import BOS, EOS, PAD, UNK

#: Positions that its encoder and decoder know: patches and tokens of the largest source.
POSITIONS = 2048
#: Tokens of its vocabulary with a meaning for the engine, at their places in OFA's; the others are called by number.
SPECIAL = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>"}


class Bart:
    """The whole model and its encoder alone, each as the engine loads it.

    Args:
        config: the OFA whose dimensions it has.
        directory: where to write its weights, an empty directory.
        compute_type: the engine's name of a type, such as ``float32`` or ``int8``.
        threads: CPU threads of a call.
    """

    def __init__(self, config: OFAConfig, directory: Path, compute_type: str, threads: int) -> None:
        words = [SPECIAL.get(index, str(index)) for index in range(config.vocab_size)]
        whole, encoder = _whole(config), TransformerEncoderModelSpec(_whole(config).encoder)
        whole.register_source_vocabulary(words)
        whole.register_target_vocabulary(words)
        whole.config.decoder_start_token = SPECIAL[BOS]
        encoder.register_vocabulary(words)
        for name, spec in (("whole", whole), ("encoder", encoder)):
            spec.validate()
            spec.optimize()
            (directory / name).mkdir()
            spec.save(str(directory / name))
        options = {"device": "cpu", "compute_type": compute_type, "intra_threads": threads, "inter_threads": 1}
        self._whole = ctranslate2.Translator(str(directory / "whole"), **options)
        self._encoder = ctranslate2.Encoder(str(directory / "encoder"), **options)
        self._words = words

    def encode(self, sources: list[list[int]]) -> tuple[int, ...]:
        """Run the encoder on ids of sources; returns the shape of the states."""
        return tuple(self._encoder.forward_batch(sources).last_hidden_state.shape)

    def generate(self, sources: list[list[int]], options: GenerationOptions) -> list[list[list[str]]]:
        """Search as ``options`` say: for each source its beams, each the words of a target."""
        found = self._whole.translate_batch(
            [[self._words[index] for index in source] for source in sources],
            beam_size=options.num_beams,
            num_hypotheses=options.num_beams,
            min_decoding_length=options.min_new_tokens,
            max_decoding_length=options.max_new_tokens,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            max_input_length=0,
        )
        return [one.hypotheses for one in found]


def compute_types() -> set[str]:
    """The types that the engine computes in on this machine's CPU."""
    return set(ctranslate2.get_supported_compute_types("cpu"))


def sources_like(tokens: Tensor, patches: int, vocab_size: int) -> list[list[int]]:
    """Sources with a token for each of ``patches`` of a picture and for each of ``tokens`` [B, N] but padding."""
    torch.manual_seed(4)
    lengths = (patches + tokens.ne(PAD).sum(1)).tolist()
    return [torch.randint(len(SPECIAL), vocab_size, (length,)).tolist() for length in lengths]


def _whole(config: OFAConfig) -> TransformerSpec:
    random = np.random.default_rng(1)
    spec = TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=False,
        activation=Activation.GELU,
        layernorm_embedding=True,
    )
    dim, inner = config.embed_dim, config.ffn_dim
    words = _matrix(random, config.vocab_size, dim)
    for stack in (spec.encoder, spec.decoder):
        stack.scale_embeddings = False
        embeddings = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
        embeddings.weight = words
        stack.position_encodings.encodings = _matrix(random, POSITIONS, dim)
        _norm(stack.layernorm_embedding, dim)
        for layer in stack.layer:
            _product(layer.self_attention.linear[0], random, 3 * dim, dim)  # queries, keys and values
            _product(layer.self_attention.linear[1], random, dim, dim)
            _norm(layer.self_attention.layer_norm, dim)
            _product(layer.ffn.linear_0, random, inner, dim)
            _product(layer.ffn.linear_1, random, dim, inner)
            _norm(layer.ffn.layer_norm, dim)
    for layer in spec.decoder.layer:
        for product, rows in zip(layer.attention.linear, (dim, 2 * dim, dim), strict=True):
            _product(product, random, rows, dim)
        _norm(layer.attention.layer_norm, dim)
    spec.decoder.projection.weight = words
    return spec


def _matrix(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return (random.standard_normal((rows, columns), dtype=np.float32) * 0.02).astype(np.float32)


def _product(spec: object, random: np.random.Generator, rows: int, columns: int) -> None:
    spec.weight = _matrix(random, rows, columns)  # type: ignore[attr-defined]
    spec.bias = np.zeros(rows, dtype=np.float32)  # type: ignore[attr-defined]


def _norm(spec: object, dim: int) -> None:
    spec.gamma = np.ones(dim, dtype=np.float32)  # type: ignore[attr-defined]
    spec.beta = np.zeros(dim, dtype=np.float32)  # type: ignore[attr-defined]
