"""OFA in Hugging Face style: the names of its state dict, its config.json, its vocab.json and merges.txt.

Such a checkpoint is fairseq's with other names, so everything here turns into fairseq's form and from there takes the
way of every other checkpoint: names and arguments are checked in one place.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_core.checkpoint.model_dir import list_names
from ofa_core.config import OFAConfig
from ofa_core.errors import CheckpointError, OFAError, shown
from ofa_core.text import Tokenizer
from ofa_core.text.bpe import ByteLevelBPE, byte_symbols, read_merges
from ofa_core.text.vocabulary import UNK, Vocabulary
from ofa_core.utils.input_files import parse_json, read_text_file

from .infer_config import OWN, UNUSED, arguments_of, task_of
from .names import DROPPED, FAIRSEQ, TIED, NameMap

# --- names of the state dict -----------------------------------------------------------------------------------------

_BOTH = {"ffn_layernorm": "ffn_layer_norm"}
#: Names of a layer's parts there, by stack and fairseq's name. Everything else keeps fairseq's name.
_LAYER_PARTS: dict[str, dict[str, str]] = {
    "encoder": _BOTH | {"attn_ln": "self_attn_mid_layer_norm"},
    "decoder": _BOTH
    | {
        "self_attn_ln": "self_attn_mid_layer_norm",
        "encoder_attn": "cross_attn",
        "encoder_attn_layer_norm": "cross_attn_layer_norm",
        "cross_attn_ln": "cross_attn_mid_layer_norm",
    },
}


def _renamed(template: str) -> str:
    parts = template.split(".")
    if parts[1:2] == ["layers"]:
        parts[3] = _LAYER_PARTS[parts[0]].get(parts[3], parts[3])
    return ".".join(parts)


#: Hugging Face style template -> fairseq's, for every entry of fairseq's, tied copies and computed buffers included.
HUGGINGFACE: dict[str, str] = {_renamed(template): template for template in (*FAIRSEQ, *TIED, *DROPPED)}

FROM_HUGGINGFACE = NameMap(HUGGINGFACE)
TO_HUGGINGFACE = FROM_HUGGINGFACE.inverse()

#: Further copies of the token embedding, which fairseq does not store: they must be equal to it and are dropped.
COPIES = ("shared.weight", "lm_head.weight")

_EMBEDDING = "encoder.embed_tokens.weight"


def is_huggingface(state: Iterable[str]) -> bool:
    """Tell whether the entries of a state dict have Hugging Face style names: any name that fairseq's models have not.

    Raises:
        CheckpointError: some names are only one's and some only the other's.
    """
    names = list(state)
    theirs = [name for name in names if name in COPIES or FROM_HUGGINGFACE(name) not in (None, name)]
    fairseqs = [name for name in names if TO_HUGGINGFACE(name) not in (None, name)]
    if theirs and fairseqs:
        raise CheckpointError(
            f"the checkpoint mixes Hugging Face's names ({list_names(theirs)}) with fairseq's ({list_names(fairseqs)})"
        )
    return bool(theirs)


def state_from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` by fairseq's names.

    The token embedding may have any of its copies' names, and needs only one of them: files that store no tensor
    twice keep whichever comes first.

    Raises:
        CheckpointError: entries that are not part of OFA, or copies of the token embedding that differ.
    """
    names = FROM_HUGGINGFACE.all([name for name in state if name not in COPIES], "the checkpoint")
    renamed = {theirs: state[name] for name, theirs in names.items()}
    embeddings = [name for name in (_EMBEDDING, *TIED, *COPIES) if name in state]
    for name in embeddings:
        first, copy = state[embeddings[0]], state[name]
        if copy is not first and not (copy.dtype == first.dtype and torch.equal(copy, first)):
            raise CheckpointError(f"{name} differs from {embeddings[0]}, of which it should be a copy")
        renamed[_EMBEDDING] = first
    return renamed


def state_to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fairseq's ``state`` by Hugging Face style names, entry for entry; :data:`COPIES` are not added.

    Raises:
        CheckpointError: entries that are not part of OFA.
    """
    return {theirs: state[name] for name, theirs in TO_HUGGINGFACE.all(state, "the checkpoint").items()}


# --- config.json -----------------------------------------------------------------------------------------------------

#: Settings under another name -> the fairseq arguments they stand for.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "d_model": ("encoder_embed_dim", "decoder_embed_dim"),
    "encoder_ffn_dim": ("encoder_ffn_embed_dim",),
    "decoder_ffn_dim": ("decoder_ffn_embed_dim",),
    "activation_function": ("activation_fn",),
    "classifier_dropout": ("pooler_dropout",),
    "max_position_embeddings": ("max_source_positions", "max_target_positions"),
    "normformer": ("scale_attn", "scale_fc"),
}
#: fairseq arguments that go another way than by their name.
_APART = (
    *("arch", "no_scale_embedding", "disable_entangle"),
    *(name for names in _SETTINGS.values() for name in names),
    *UNUSED,
)
_MODEL = OFAConfig.preset("base")
#: Those under fairseq's name. The switches that ``normformer`` turns together may also stand one by one.
_SAME = (*(name for name in arguments_of(_MODEL) if name not in _APART), *_SETTINGS["normformer"])
_TASK = tuple(name for name in task_of(_MODEL) if name != "_name")

#: Switches that make another model of it: what each is in OFA.
_FIXED = {"use_ofasys": False, "share_attn_bias": False, "use_gamma_feature": False, "use_image_feature": True}


def arguments_from_huggingface(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """fairseq's model arguments and task settings, as far as the content of a config.json tells them.

    They are for :func:`config_from_fairseq`, which compares them with the tensors. Other settings are ignored: such a
    file holds dozens, of generation for the most part.

    Raises:
        CheckpointError: the settings are another model's, or of a variant that is not supported.
    """
    told = {name: value for name, value in config.items() if value is not None}
    if told.get("model_type", "ofa") != "ofa":
        raise CheckpointError(f"config.json is of a model of type {shown(told['model_type'])}, not 'ofa'")
    for name, value in _FIXED.items():
        if told.get(name, value) != value:
            raise CheckpointError(
                f"config.json has {name}={shown(told[name])}, which is not supported; OFA has {value!r}"
            )
    args = {argument: told[name] for name, those in _SETTINGS.items() if name in told for argument in those}
    args |= {name: told[name] for name in (*_SAME, *OWN) if name in told}
    if "scale_embedding" in told:
        args["no_scale_embedding"] = not told["scale_embedding"]
    # Here the decoder adds positions only where the encoder does; fairseq's looks at disable_entangle alone.
    args["disable_entangle"] = bool(told.get("disable_entangle")) or not told.get("entangle_position_embedding")
    task = {name: told[name] for name in (*_TASK, "task") if name in told}
    return args, task


def config_to_huggingface(config: OFAConfig) -> dict[str, Any]:
    """The content of a config.json for ``config``: what :func:`arguments_from_huggingface` reads, and token ids.

    Task settings stand there too, under fairseq's names; extra tokens do not, since vocab.json names them.

    Raises:
        CheckpointError: positions are added in the decoder but not in the encoder, for which there is no setting.
    """
    if config.entangle_decoder_positions and not config.entangle_encoder_positions:
        raise CheckpointError(
            "entangle_decoder_positions without entangle_encoder_positions cannot be told in a config.json"
        )
    args = arguments_of(config)
    settings = {name: args[those[0]] for name, those in _SETTINGS.items() if len({args[a] for a in those}) == 1}
    settings |= {name: args.get(name) for name in (*_SAME, "disable_entangle", *OWN)}
    task = task_of(config)
    settings |= {name: task[name] for name in _TASK} | {"task": task["_name"]}
    ids = {"bos_token_id": Vocabulary.bos, "pad_token_id": Vocabulary.pad, "eos_token_id": Vocabulary.eos}
    fixed = {
        "model_type": "ofa",
        "architectures": ["OFAModel"],
        "is_encoder_decoder": True,
        "scale_embedding": not args["no_scale_embedding"],
        "decoder_start_token_id": Vocabulary.bos,
        "forced_eos_token_id": Vocabulary.eos,
    }
    return fixed | ids | {name: value for name, value in settings.items() if value is not None}


# --- vocab.json, added_tokens.json, merges.txt -----------------------------------------------------------------------

VOCAB_FILE, ADDED_FILE, MERGES_FILE = "vocab.json", "added_tokens.json", "merges.txt"
#: The tokens of a Chinese model, one a line, its number the id; it stands in the place of the other two.
BERT_FILE = "vocab.txt"

#: The last token of GPT-2's own vocabulary, the one that is neither a byte nor made by a merge.
_END_OF_TEXT = "<|endoftext|>"
#: Lines of dict.txt that are no token of text, such as madeupword0000.
_PLACEHOLDER = re.compile(r"madeupword[0-9]+|<[^\s<>]+>")
_CODE, _BIN = re.compile(r"<code_[0-9]+>"), re.compile(r"<bin_[0-9]+>")


def vocabulary_from_huggingface(directory: str | PathLike[str]) -> dict[str, bytes]:
    """encoder.json, vocab.bpe and dict.txt, name to content, of a directory with vocab.json and merges.txt.

    Of a Chinese model's, which has vocab.txt instead, they are vocab.txt and dict.txt.

    A :class:`Tokenizer` over them, laid out as :func:`vocabulary_settings` says, gives every token the id it has in
    vocab.json, or in added_tokens.json where there is one. The inner ids are GPT-2's: bytes, then merges, in order.

    Raises:
        CheckpointError: a file is missing or broken, ids have a gap or occur twice, tokens stand in an order that is
            not OFA's, or vocab.json and merges.txt do not belong together.
    """
    directory = Path(directory)
    vocabulary = _vocabulary(directory)
    if _tokens_file(directory).name == BERT_FILE:
        return {
            BERT_FILE: "".join(f"{token}\n" for token in vocabulary.symbols).encode(),
            "dict.txt": "".join(f"{token} 1\n" for token in vocabulary.symbols).encode(),
        }
    vocab, merges = directory / VOCAB_FILE, directory / MERGES_FILE
    bpe_ids = _bpe_ids(merges)
    if _END_OF_TEXT in vocabulary.symbols:
        bpe_ids.setdefault(_END_OF_TEXT, len(bpe_ids))
    for token in bpe_ids:
        number = vocabulary.id_of(token)
        if number == UNK:
            raise CheckpointError(f"{vocab}: {shown(token)}, which is a byte or made by {MERGES_FILE}, has no id")
        if not UNK < number < vocabulary.mask:
            raise CheckpointError(f"{vocab}: {shown(token)} has id {number}; tokens of text stand before '<mask>'")
    for token in vocabulary.symbols:
        if token not in bpe_ids and not _PLACEHOLDER.fullmatch(token):
            raise CheckpointError(
                f"{vocab}: {shown(token)} with id {vocabulary.id_of(token)} is neither made by {MERGES_FILE} "
                "nor a placeholder such as 'madeupword0000'"
            )
    lines = [f"{bpe_ids.get(token, token)} 0\n" for token in vocabulary.symbols]
    return {
        "encoder.json": json.dumps(bpe_ids).encode(),
        "vocab.bpe": merges.read_bytes(),
        "dict.txt": "".join(lines).encode(),
    }


def vocabulary_settings(directory: str | PathLike[str]) -> dict[str, Any]:
    """``code_dict_size``, ``num_bins`` and ``extra_tokens`` of the vocabulary in ``directory``.

    Nothing where its last token is ``<mask>``: some users of such files add codes and bins when they run.

    Raises:
        CheckpointError: as :func:`vocabulary_from_huggingface`.
    """
    vocabulary = _vocabulary(Path(directory))
    if len(vocabulary) == vocabulary.mask + 1:
        return {}
    return {name: getattr(vocabulary, name) for name in ("code_dict_size", "num_bins", "extra_tokens")}


def vocabulary_to_huggingface(tokenizer: Tokenizer) -> dict[str, bytes]:
    """vocab.json, added_tokens.json and merges.txt, name to content, with the ids of ``tokenizer``.

    vocab.json ends at ``<mask>``. Codes, bins and extra tokens stand in added_tokens.json, since a tokenizer of that
    style finds in a text, as whole symbols, only what was added.

    Raises:
        CheckpointError: a tokenizer of another kind, with tokens of text that have no id, or with two tokens that
            look alike in vocab.json.
    """
    if tokenizer.kind != "gpt2":
        raise CheckpointError(f"{VOCAB_FILE} and {MERGES_FILE} hold byte-level BPE, not the {tokenizer.kind!r} kind")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        bpe_ids = json.loads((Path(folder) / "encoder.json").read_bytes())
        merges = (Path(folder) / "vocab.bpe").read_bytes()
    symbols, vocabulary = tokenizer.bpe.dictionary_symbols(), tokenizer.vocabulary
    spelled = {symbols[number]: token for token, number in bpe_ids.items()}
    unlisted = [token for symbol, token in spelled.items() if symbol not in vocabulary]
    if unlisted:
        raise CheckpointError(
            f"{len(unlisted)} tokens of text have no id, which {VOCAB_FILE} needs: {shown(unlisted[0])}"
        )
    ids: dict[str, int] = {}
    for number in range(len(vocabulary)):
        token = vocabulary.symbol_of(number)
        token = spelled.get(token, token)
        if ids.setdefault(token, number) != number:
            raise CheckpointError(
                f"{shown(token)} would stand twice in {VOCAB_FILE}, with ids {ids[token]} and {number}"
            )
    of_text = {token: number for token, number in ids.items() if number <= vocabulary.mask}
    added = {token: number for token, number in ids.items() if number > vocabulary.mask}
    return {
        VOCAB_FILE: json.dumps(of_text, ensure_ascii=False).encode(),
        ADDED_FILE: json.dumps(added, ensure_ascii=False).encode(),
        MERGES_FILE: merges,
    }


def _vocabulary(directory: Path) -> Vocabulary:
    """The layout of the ids in vocab.json; its ``symbols`` are tokens there, not yet what dict.txt calls them."""
    origin: dict[str, Path] = {}
    tokens = _tokens_by_id(directory, origin)
    vocab = _tokens_file(directory)
    if "<mask>" not in origin:
        raise CheckpointError(f"{vocab} has no '<mask>', so it is not a vocabulary of OFA")
    _compare(tokens[: UNK + 1], Vocabulary((), 0, 0), origin)
    mask = tokens.index("<mask>")
    before, after = tokens[UNK + 1 : mask], tokens[mask + 1 :]
    for token in before:
        if _CODE.fullmatch(token) or _BIN.fullmatch(token):
            raise CheckpointError(
                f"{origin[token]}: {shown(token)} stands before '<mask>', where OFA has tokens of text"
            )
    codes, bins = ([token for token in after if kind.fullmatch(token)] for kind in (_CODE, _BIN))
    extra = [token for token in after if not (_CODE.fullmatch(token) or _BIN.fullmatch(token))]
    try:
        vocabulary = Vocabulary(before, len(codes), len(bins), extra)
    except OFAError as error:
        raise CheckpointError(f"{vocab}: {error}") from None
    _compare(tokens, vocabulary, origin)
    return vocabulary


def _compare(tokens: Sequence[str], vocabulary: Vocabulary, origin: Mapping[str, Path]) -> None:
    """Raise where a token has another id than in ``vocabulary``."""
    for number, token in enumerate(tokens):
        expected = vocabulary.symbol_of(number)
        if token != expected:
            raise CheckpointError(f"{origin[token]}: {shown(token)} has id {number}, where OFA has {shown(expected)}")


def _tokens_by_id(directory: Path, origin: dict[str, Path]) -> list[str]:
    """All tokens in the order of their ids, 0, 1, 2 and so on; ``origin`` is told the file of each."""
    ids: dict[str, int] = {}
    tokens: dict[int, str] = {}
    for path in (_tokens_file(directory), directory / ADDED_FILE):
        if path.name == ADDED_FILE and not path.is_file():
            continue
        read = _read_token_lines if path.name == BERT_FILE else _read_token_ids
        for token, number in read(path):
            if ids.setdefault(token, number) != number:
                raise CheckpointError(f"{path}: {shown(token)} has two ids, {ids[token]} and {number}")
            if tokens.setdefault(number, token) != token:
                raise CheckpointError(f"{path}: {shown(token)} and {shown(tokens[number])} both have id {number}")
            origin.setdefault(token, path)
    for expected, number in enumerate(sorted(tokens)):
        if number != expected:
            token = tokens[number]
            raise CheckpointError(
                f"{origin[token]}: no token has id {expected}; the next, {shown(token)}, has {number}"
            )
    return [tokens[number] for number in range(len(tokens))]


def _tokens_file(directory: Path) -> Path:
    """The file of the tokens of text: vocab.txt where there is no vocab.json."""
    chinese = (directory / BERT_FILE).is_file() and not (directory / VOCAB_FILE).is_file()
    return directory / (BERT_FILE if chinese else VOCAB_FILE)


def _read_token_lines(path: Path) -> Iterable[tuple[str, int]]:
    """The pairs of a file with one token a line; a token that stands there twice comes twice."""
    try:
        lines = read_text_file(path).split("\n")  # a token may be another line separator
    except OFAError as error:
        raise CheckpointError(str(error)) from None
    lines = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    for number, token in enumerate(lines):
        if not token:
            raise CheckpointError(f"{path}:{number + 1}: expected a token, found an empty line")
    return [(token, number) for number, token in enumerate(lines)]


def _read_token_ids(path: Path) -> Iterable[tuple[str, int]]:
    """The pairs of a JSON object of token and id; a key that stands there twice comes twice."""
    try:
        content = parse_json(read_text_file(path), object_pairs_hook=tuple)  # arrays are lists, objects alone tuples
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except OFAError as error:
        raise CheckpointError(str(error)) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON that can be read ({error})") from None
    if not isinstance(content, tuple):
        raise CheckpointError(f"{path}: expected one JSON object from token to integer id")
    for token, number in content:
        if type(number) is not int:
            raise CheckpointError(f"{path}: the id of {shown(token)} is {shown(number)}, which is not an integer")
        if not token.isascii() and any("\ud800" <= character <= "\udfff" for character in token):
            raise CheckpointError(f"{path}: {shown(token)} holds half a character")
    return content


def _bpe_ids(path: Path) -> dict[str, int]:
    """GPT-2's ids of bytes and of what the merges in ``path`` make of them."""
    alphabet = sorted(byte_symbols(bytes(range(256))))  # which is the order GPT-2 counts them in
    try:
        merges = read_merges(path)
        made = dict.fromkeys([*alphabet, *(left + right for left, right in merges)])
        ids = {token: number for number, token in enumerate(made)}
        ByteLevelBPE(ids, merges)  # whose checks are those of the tokenizer to come
    except OFAError as error:
        message = str(error)
        raise CheckpointError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return ids
