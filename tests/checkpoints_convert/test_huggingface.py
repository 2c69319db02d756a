from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import EVERYTHING, OWN_GOLDEN, forward_cases, golden, quick_config, random_state
from torch import Tensor

from checkpoints_convert import config_from_fairseq, from_fairseq, to_fairseq
from checkpoints_convert.huggingface import (
    COPIES,
    FROM_HUGGINGFACE,
    HUGGINGFACE,
    TO_HUGGINGFACE,
    arguments_from_huggingface,
    config_to_huggingface,
    is_huggingface,
    state_from_huggingface,
    state_to_huggingface,
    vocabulary_from_huggingface,
    vocabulary_settings,
    vocabulary_to_huggingface,
)
from checkpoints_convert.names import DROPPED, FAIRSEQ, TIED
from ofa_core import CheckpointError, OFAConfig, TaskSettings, Tokenizer
from ofa_core.text import small_vocabulary_dir

CASES = forward_cases(OWN_GOLDEN)
EMBEDDING = "encoder.embed_tokens.weight"
#: Hugging Face style name -> fairseq's, of what has another name.
ENCODER_LAYER = {
    "self_attn_mid_layer_norm.weight": "attn_ln.weight",
    "self_attn_mid_layer_norm.bias": "attn_ln.bias",
    "ffn_layer_norm.weight": "ffn_layernorm.weight",
    "ffn_layer_norm.bias": "ffn_layernorm.bias",
}
DECODER_LAYER = {
    "self_attn_mid_layer_norm.weight": "self_attn_ln.weight",
    "self_attn_mid_layer_norm.bias": "self_attn_ln.bias",
    "cross_attn.c_attn": "encoder_attn.c_attn",
    "cross_attn.q_proj.weight": "encoder_attn.q_proj.weight",
    "cross_attn.q_proj.bias": "encoder_attn.q_proj.bias",
    "cross_attn.k_proj.weight": "encoder_attn.k_proj.weight",
    "cross_attn.k_proj.bias": "encoder_attn.k_proj.bias",
    "cross_attn.v_proj.weight": "encoder_attn.v_proj.weight",
    "cross_attn.v_proj.bias": "encoder_attn.v_proj.bias",
    "cross_attn.out_proj.weight": "encoder_attn.out_proj.weight",
    "cross_attn.out_proj.bias": "encoder_attn.out_proj.bias",
    "cross_attn_layer_norm.weight": "encoder_attn_layer_norm.weight",
    "cross_attn_layer_norm.bias": "encoder_attn_layer_norm.bias",
    "cross_attn_mid_layer_norm.weight": "cross_attn_ln.weight",
    "cross_attn_mid_layer_norm.bias": "cross_attn_ln.bias",
    "ffn_layer_norm.weight": "ffn_layernorm.weight",
    "ffn_layer_norm.bias": "ffn_layernorm.bias",
}
RENAMED = {
    f"{stack}.layers.1.{new}": f"{stack}.layers.1.{old}"
    for stack, table in (("encoder", ENCODER_LAYER), ("decoder", DECODER_LAYER))
    for new, old in table.items()
}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Every entry of every reference model."""
    return {name for case in CASES for name in golden(f"{case}.json")["shapes"]}


def test_the_names_map_one_to_one_on_every_entry_of_the_original(names: set[str]) -> None:
    assert len(names) > 1900
    there = {name: TO_HUGGINGFACE(name) for name in names}
    assert None not in there.values()
    assert len(set(there.values())) == len(names)
    assert {name: FROM_HUGGINGFACE(str(new)) for name, new in there.items()} == {name: name for name in names}


def test_every_template_of_fairseq_has_one_there() -> None:
    assert sorted(HUGGINGFACE.values()) == sorted([*FAIRSEQ, *TIED, *DROPPED])


def test_a_layer_has_exactly_the_other_names_that_are_documented(names: set[str]) -> None:
    changed = {TO_HUGGINGFACE(name): name for name in names if TO_HUGGINGFACE(name) != name and ".layers.1." in name}
    assert changed == RENAMED
    outside = [name for name in names if TO_HUGGINGFACE(name) != name and ".layers." not in name]
    assert outside == []


@pytest.mark.parametrize("name", [*RENAMED.values(), "model.encoder.layer_norm.weight", "encoder.layers.0.weight_ffn"])
def test_a_name_that_is_none_of_theirs_is_refused(name: str) -> None:
    assert FROM_HUGGINGFACE(name) is None
    with pytest.raises(CheckpointError, match=rf"the checkpoint: 1 .* not part of OFA: {re.escape(name)}$"):
        state_from_huggingface({"encoder.layer_norm.weight": torch.zeros(1), name: torch.zeros(1)})


@pytest.mark.parametrize("name", [*RENAMED, *COPIES])
def test_a_name_that_is_only_theirs_is_refused_from_fairseq_and_tells_their_files(name: str) -> None:
    assert is_huggingface(["encoder.layer_norm.weight", name])
    with pytest.raises(CheckpointError, match=rf"not part of OFA: {re.escape(name)}$"):
        state_to_huggingface({name: torch.zeros(1)})


@pytest.mark.parametrize("case", CASES)
def test_files_are_told_by_their_names(case: str) -> None:
    fairseqs = golden(f"{case}.json")["shapes"]
    assert not is_huggingface(fairseqs)
    assert is_huggingface([str(TO_HUGGINGFACE(name)) for name in fairseqs])


def test_names_of_neither_do_not_count() -> None:
    assert not is_huggingface([])
    assert not is_huggingface(["encoder.layer_norm.weight", "encoder.layers.0.moe.weight", *TIED, *DROPPED])


@pytest.mark.parametrize("name", [*RENAMED, *COPIES])
def test_a_mixture_is_refused_and_both_sides_are_named(name: str) -> None:
    mixture = ["encoder.layer_norm.weight", "decoder.layers.0.encoder_attn.c_attn", name]
    expected = rf"mixes Hugging Face's names \({re.escape(name)}\) with fairseq's \(decoder\.layers\.0\.encoder_attn"
    with pytest.raises(CheckpointError, match=expected):
        is_huggingface(mixture)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fairseqs() -> dict[str, Tensor]:
    return to_fairseq(random_state(EVERYTHING), EVERYTHING)


@pytest.fixture
def theirs(fairseqs: dict[str, Tensor]) -> dict[str, Tensor]:
    return state_to_huggingface(fairseqs)


def same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
        flat = tensor.contiguous().flatten().view(torch.uint8)
        return tensor.dtype, tuple(tensor.shape), flat.numpy().tobytes()

    return first.keys() == second.keys() and all(bits(first[name]) == bits(second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    ours = random_state(EVERYTHING)
    ours = {name: t.to(dtype) if t.is_floating_point() else t for name, t in ours.items()}
    fairseqs = to_fairseq(ours, EVERYTHING)
    theirs = state_to_huggingface(fairseqs)
    assert is_huggingface(theirs)
    assert len(theirs) == len(fairseqs)
    assert same_bits(state_from_huggingface(theirs), fairseqs)
    assert same_bits(from_fairseq(state_from_huggingface(theirs), EVERYTHING), ours)


def test_every_renamed_weight_is_the_sources_own(theirs: dict[str, Tensor], fairseqs: dict[str, Tensor]) -> None:
    for new, old in RENAMED.items():
        assert theirs[new] is fairseqs[old]


@pytest.mark.parametrize("copies", [(), COPIES, ("shared.weight",), ("lm_head.weight",)])
def test_further_copies_of_the_embedding_are_dropped(
    theirs: dict[str, Tensor], fairseqs: dict[str, Tensor], copies: tuple[str, ...]
) -> None:
    with_copies = {name: theirs[EMBEDDING].clone() for name in copies} | theirs
    assert same_bits(state_from_huggingface(with_copies), fairseqs)


@pytest.mark.parametrize("name", [EMBEDDING, *TIED, *COPIES])
def test_one_copy_of_the_embedding_is_enough(theirs: dict[str, Tensor], fairseqs: dict[str, Tensor], name: str) -> None:
    embedding = theirs[EMBEDDING]
    left = {key: tensor for key, tensor in theirs.items() if key not in (EMBEDDING, *TIED)} | {name: embedding}
    expected = from_fairseq(fairseqs, EVERYTHING)
    assert same_bits(from_fairseq(state_from_huggingface(left), EVERYTHING), expected)


@pytest.mark.parametrize("name", [*TIED, *COPIES])
@pytest.mark.parametrize("change", ["value", "shape", "dtype"])
def test_a_copy_that_differs_is_refused(theirs: dict[str, Tensor], name: str, change: str) -> None:
    embedding = theirs[EMBEDDING]
    other = embedding.clone()
    other[-1, -1] += 1
    theirs[name] = {"value": other, "shape": embedding[:-1], "dtype": embedding.double()}[change]
    with pytest.raises(CheckpointError, match=f"^{re.escape(name)} differs from {re.escape(EMBEDDING)}"):
        state_from_huggingface(theirs)


def test_copies_that_differ_from_each_other_are_refused_without_the_embedding(theirs: dict[str, Tensor]) -> None:
    embedding = theirs[EMBEDDING]
    left = {name: tensor for name, tensor in theirs.items() if name not in (EMBEDDING, *TIED)}
    with pytest.raises(CheckpointError, match=r"^lm_head\.weight differs from shared\.weight"):
        state_from_huggingface(left | {"shared.weight": embedding, "lm_head.weight": embedding + 1})


# --- config.json -----------------------------------------------------------------------------------------------------

#: What tensors do not show, each with a value of its own.
UNSEEN: dict[str, Any] = {
    "attn_scale_factor": 3.0,
    "code_image_size": 64,
    "orig_patch_image_size": 224,
    "interpolate_position": True,
    "entangle_encoder_positions": True,
    "entangle_decoder_positions": True,
    "dropout": 0.11,
    "attention_dropout": 0.12,
    "activation_dropout": 0.13,
    "pooler_dropout": 0.14,
    "encoder_drop_path": 0.15,
    "decoder_drop_path": 0.16,
    "stem_drop_path": 0.17,
    "task": TaskSettings(
        name="refcoco",
        image_size=96,
        max_image_size=128,
        code_dict_size=0,
        prompt_type="src",
        add_object=True,
        imagenet_normalization=True,
        max_source_tokens=77,
        max_target_tokens=33,
    ),
}
PARTS = ("image_layernorm", "code_layernorm", "type_embedding", "scale_attn", "scale_fc", "scale_heads")
CONFIGS = {
    "released": quick_config(),
    "everything": EVERYTHING,
    "unseen": quick_config(**UNSEEN),
    "entangled encoder": quick_config(entangle_encoder_positions=True),
    "plain": quick_config(**dict.fromkeys(PARTS, False)),
    "half a normformer": quick_config(scale_fc=False),
    "uneven": quick_config(max_source_positions=64, encoder_layers=1),
}
#: As the published files have it (generation settings and all), for the sizes of quick_config.
PUBLISHED: dict[str, Any] = {
    "_name_or_path": "./",
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "add_type_embedding": True,
    "architectures": ["OFAModel"],
    "attention_dropout": 0.0,
    "attn_scale_factor": 2.0,
    "bos_token_id": 0,
    "classifier_dropout": 0.3,
    "code_image_size": 128,
    "code_layernorm_embedding": True,
    "d_model": 32,
    "decoder_attention_heads": 4,
    "decoder_drop_path_rate": 0.0,
    "decoder_ffn_dim": 64,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 2,
    "decoder_normalize_before": True,
    "decoder_start_token_id": 0,
    "disable_entangle": False,
    "dropout": 0.1,
    "encoder_attention_heads": 4,
    "encoder_drop_path_rate": 0.2,
    "encoder_ffn_dim": 64,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 2,
    "encoder_normalize_before": True,
    "entangle_position_embedding": False,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "image_bucket_size": 8,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "layernorm_embedding": True,
    "max_position_embeddings": 128,
    "model_type": "ofa",
    "normformer": True,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "patch_layernorm_embedding": True,
    "resnet_drop_path_rate": 0.0,
    "resnet_model_path": None,
    "scale_embedding": False,
    "share_attn_bias": False,
    "share_decoder_input_output_embed": True,
    "token_bucket_size": 16,
    "torch_dtype": "float32",
    "transformers_version": "4.20.0",
    "use_cache": False,
    "use_image_feature": True,
    "use_ofasys": False,
}


def read_back(settings: Mapping[str, Any], of: OFAConfig) -> OFAConfig:
    """The configuration of the weights of one and the settings of another."""
    return config_from_fairseq(to_fairseq(random_state(of), of), *arguments_from_huggingface(settings))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_comes_back_through_json(kind: str) -> None:
    config = CONFIGS[kind]
    settings = json.loads(json.dumps(config_to_huggingface(config)))
    assert settings["model_type"] == "ofa"
    assert settings["vocab_size"] == config.vocab_size
    assert read_back(settings, config) == config


@pytest.mark.parametrize("size", ["tiny", "medium", "base", "large", "huge"])
def test_the_released_sizes_are_told_in_their_words(size: str) -> None:
    config = OFAConfig.preset(size)
    settings = config_to_huggingface(config)
    words = {"d_model": "embed_dim", "encoder_ffn_dim": "ffn_dim", "decoder_ffn_dim": "ffn_dim"}
    words |= {"encoder_attention_heads": "num_heads", "decoder_attention_heads": "num_heads"}
    words |= {name: name for name in ("encoder_layers", "decoder_layers")}
    assert {name: settings[name] for name in words} == {name: getattr(config, field) for name, field in words.items()}
    expected = {"normformer": True, "max_position_embeddings": 1024, "scale_embedding": False}
    expected |= {"entangle_position_embedding": False, "disable_entangle": True, "decoder_start_token_id": 0}
    assert {name: settings[name] for name in expected} == expected


def test_a_published_file_is_read() -> None:
    config = quick_config()
    told = {"dropout": 0.1, "encoder_drop_path": 0.2, "pooler_dropout": 0.3, "task": TaskSettings()}
    assert read_back(PUBLISHED, config) == config.model_copy(update=told)


def test_a_setting_of_null_tells_nothing() -> None:
    config = quick_config()
    expected = config.model_copy(update={"task": TaskSettings()})
    assert read_back(dict.fromkeys(PUBLISHED | config_to_huggingface(config)), config) == expected


def test_a_switch_for_two_things_is_left_out_where_they_differ() -> None:
    config = CONFIGS["half a normformer"]
    settings = config_to_huggingface(config)
    assert "normformer" not in settings
    assert (settings["scale_attn"], settings["scale_fc"]) == (True, False)
    assert read_back(PUBLISHED | {"scale_fc": False}, config).scale_fc is False
    assert "max_position_embeddings" not in config_to_huggingface(CONFIGS["uneven"])


@pytest.mark.parametrize(
    ("entangle", "disable", "encoder", "decoder"),
    [
        (False, False, False, False),
        (False, True, False, False),
        (True, False, True, True),
        (True, True, True, False),
        (None, None, False, False),
    ],
)
def test_the_decoder_adds_positions_only_where_the_encoder_does(
    entangle: bool | None, disable: bool | None, encoder: bool, decoder: bool
) -> None:
    config = read_back({"entangle_position_embedding": entangle, "disable_entangle": disable}, quick_config())
    assert (config.entangle_encoder_positions, config.entangle_decoder_positions) == (encoder, decoder)


def test_positions_in_the_decoder_alone_cannot_be_told() -> None:
    with pytest.raises(CheckpointError, match="entangle_decoder_positions without entangle_encoder_positions"):
        config_to_huggingface(quick_config(entangle_decoder_positions=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "config.json is of a model of type 'bart', not 'ofa'"),
        ({"use_ofasys": True}, "use_ofasys=True, which is not supported; OFA has False"),
        ({"share_attn_bias": True}, "share_attn_bias=True, which is not supported"),
        ({"use_gamma_feature": True}, "use_gamma_feature=True, which is not supported"),
        ({"use_image_feature": False}, "use_image_feature=False, which is not supported; OFA has True"),
        ({"d_model": 64}, "encoder_embed_dim=64 contradicts the tensors, which say 32"),
        ({"encoder_ffn_dim": 65}, "encoder_ffn_embed_dim=65 contradicts"),
        ({"decoder_ffn_dim": 65}, "decoder_ffn_embed_dim=65 contradicts"),
        ({"encoder_layers": 3}, "encoder_layers=3 contradicts"),
        ({"decoder_attention_heads": 8}, "decoder_attention_heads=8 contradicts"),
        ({"token_bucket_size": 17}, "token_bucket_size=17 contradicts"),
        ({"image_bucket_size": 42}, "image_bucket_size=42 contradicts"),
        ({"add_type_embedding": False}, "add_type_embedding=False contradicts"),
        ({"normformer": False}, "scale_attn=False contradicts"),
        ({"normformer": False, "scale_attn": True}, "scale_fc=False contradicts"),
        ({"resnet_type": "resnet50"}, "resnet_type=resnet50 means"),
        ({"scale_embedding": True}, "no_scale_embedding=False is not supported"),
        ({"activation_function": "relu"}, "activation_fn='relu' is not supported"),
        ({"encoder_normalize_before": False}, "encoder_normalize_before=False is not supported"),
        ({"attn_scale_factor": "much"}, "attn_scale_factor='much' makes no sense"),
        ({"dropout": 2}, "dropout is 2"),
    ],
)
def test_a_setting_that_is_not_this_models_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_back(PUBLISHED | change, quick_config())


# --- vocabulary ------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "small": {"code_dict_size": 0, "num_bins": 1000},
    "codes": {"code_dict_size": 12, "num_bins": 7},
    "extra": {"code_dict_size": 3, "num_bins": 5, "extra_tokens": ("<yes>", "»maybe«")},
    "no bins": {"code_dict_size": 3, "num_bins": 0},
}


def written(directory: Path, files: Mapping[str, bytes]) -> Path:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def read_again(directory: Path, files: Mapping[str, bytes], **layout: Any) -> Tokenizer:
    """A tokenizer over Hugging Face style files, by way of fairseq's."""
    source = written(directory, files)
    fairseqs = written(directory / "fairseq", vocabulary_from_huggingface(source))
    return Tokenizer.from_dir(fairseqs, **(vocabulary_settings(source) or layout))


def random_texts(seed: int, count: int = 300) -> list[str]:
    random_ = random.Random(seed)
    words = [" the", " region", "describe", "cat", " <bin_3>", "<s>", "'s", "  ", "\n", "42", " é", "狗", "😀", "\x00"]
    return ["".join(random_.choices(words, k=random_.randrange(12))) for _ in range(count)]


def small_tokenizer(**layout: Any) -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), **layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vocabulary_comes_back_with_all_its_ids(tmp_path: Path, layout: str) -> None:
    tokenizer = small_tokenizer(**LAYOUTS[layout])
    back = read_again(tmp_path / "theirs", vocabulary_to_huggingface(tokenizer))
    assert back.vocabulary == tokenizer.vocabulary
    for text in random_texts(0):
        ids = tokenizer.encode(text)
        assert back.encode(text) == ids
        assert back.encode(text, symbols=True) == tokenizer.encode(text, symbols=True)
        assert back.decode(ids) == tokenizer.decode(ids)
    everything = list(range(len(tokenizer)))
    assert back.decode(everything, skip_special_tokens=False) == tokenizer.decode(everything, skip_special_tokens=False)


def test_a_second_round_gives_the_same_files(tmp_path: Path) -> None:
    files = vocabulary_to_huggingface(small_tokenizer(code_dict_size=4))
    assert vocabulary_to_huggingface(read_again(tmp_path / "theirs", files)) == files


def test_vocab_json_has_every_token_by_its_spelling() -> None:
    tokenizer = small_tokenizer(**LAYOUTS["extra"])
    files = vocabulary_to_huggingface(tokenizer)
    ids = json.loads(files["vocab.json"]) | json.loads(files["added_tokens.json"])
    vocabulary = tokenizer.vocabulary
    assert sorted(json.loads(files["vocab.json"]).values()) == list(range(vocabulary.mask + 1))
    assert sorted(ids.values()) == list(range(len(tokenizer)))
    expected = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": vocabulary.mask}
    expected |= {"<code_2>": vocabulary.code_start + 2, "<bin_4>": vocabulary.bin_start + 4}
    expected |= {"madeupword0002": vocabulary.mask - 1, "<yes>": vocabulary.bin_end}
    expected |= {"Ġthe": tokenizer.encode(" the")[0], "Ċ": tokenizer.encode("\n")[0]}
    assert {token: ids[token] for token in expected} == expected


def assert_equals_the_library(directory: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Hugging Face's own byte-level BPE reads the files as we do."""
    tokenizers: Any = pytest.importorskip("tokenizers")
    written(directory, vocabulary_to_huggingface(tokenizer))
    model = tokenizers.models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    oracle = tokenizers.Tokenizer(model)
    oracle.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in texts:
        assert oracle.encode(text).ids == tokenizer.encode(text)


def test_hugging_faces_own_library_finds_the_same_ids(tmp_path: Path) -> None:
    assert_equals_the_library(tmp_path / "theirs", small_tokenizer(**LAYOUTS["codes"]), random_texts(1))


def test_the_official_vocabulary_comes_back(tmp_path: Path, official_bpe: Path) -> None:
    tokenizer = Tokenizer.from_dir(official_bpe)
    files = vocabulary_to_huggingface(tokenizer)
    back = read_again(tmp_path / "theirs", files)
    assert back.vocabulary == tokenizer.vocabulary
    for case in golden("tokenizer.json"):
        assert back.encode(case["text"]) == case["ids"]
        assert back.decode(case["ids"]) == (case["decoded"] or "")
    fairseqs = tmp_path / "theirs" / "fairseq"
    assert json.loads((fairseqs / "encoder.json").read_text()) == json.loads(
        (official_bpe / "encoder.json").read_text()
    )
    assert (fairseqs / "vocab.bpe").read_bytes() == (official_bpe / "vocab.bpe").read_bytes()
    texts = [case["text"] for case in golden("tokenizer.json") if case["gpt2"]]
    assert_equals_the_library(tmp_path / "again", tokenizer, texts)


def test_a_file_that_ends_at_mask_leaves_codes_and_bins_to_the_reader(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(code_dict_size=0, num_bins=0)
    files = vocabulary_to_huggingface(tokenizer)
    back = read_again(tmp_path / "theirs", files, code_dict_size=3, num_bins=9)
    assert vocabulary_settings(tmp_path / "theirs") == {}
    assert back.vocabulary == small_tokenizer(code_dict_size=3, num_bins=9).vocabulary


def in_one_file(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files with all tokens in vocab.json, as some have it."""
    ids = json.loads(files["vocab.json"]) | json.loads(files["added_tokens.json"])
    return {name: content for name, content in files.items() if name != "added_tokens.json"} | {
        "vocab.json": json.dumps(ids).encode()
    }


def test_tokens_may_stand_in_a_file_of_added_ones(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(**LAYOUTS["extra"])
    files = in_one_file(vocabulary_to_huggingface(tokenizer))
    assert read_again(tmp_path / "one", files).vocabulary == tokenizer.vocabulary
    ids = json.loads(files["vocab.json"])
    added = {token: number for token, number in ids.items() if number > tokenizer.vocabulary.mask}
    added["<mask>"] = ids["<mask>"]  # it may stand in both
    rest = {token: number for token, number in ids.items() if number <= tokenizer.vocabulary.mask}
    parts = {"vocab.json": json.dumps(rest).encode(), "added_tokens.json": json.dumps(added).encode()}
    back = read_again(tmp_path / "theirs", files | parts)
    assert back.vocabulary == tokenizer.vocabulary


def test_the_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(**LAYOUTS["codes"])
    files = vocabulary_to_huggingface(tokenizer)
    shuffled = list(json.loads(files["vocab.json"]).items())
    random.Random(0).shuffle(shuffled)
    back = read_again(tmp_path / "theirs", files | {"vocab.json": json.dumps(dict(shuffled), indent=2).encode()})
    assert back.vocabulary == tokenizer.vocabulary


Edit = Callable[[dict[str, int]], object]


def swap(ids: dict[str, int], first: str, second: str) -> None:
    ids[first], ids[second] = ids[second], ids[first]


def drop_and_close(ids: dict[str, int], token: str) -> None:
    gone = ids.pop(token)
    ids.update({other: number - 1 for other, number in ids.items() if number > gone})


def rename(ids: dict[str, int], old: str, new: str) -> None:
    ids[new] = ids.pop(old)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ids: ids.pop("<code_1>"), r"no token has id \d+; the next, '<code_2>', has \d+$"),
        (lambda ids: ids.update({"<pad>": -1}), r"no token has id 0; the next, '<pad>', has -1$"),
        (lambda ids: ids.update({"<code_1>": ids["<code_2>"]}), r"'<code_2>' and '<code_1>' both have id \d+$"),
        (lambda ids: ids.update({"<code_1>": True}), r"the id of '<code_1>' is True, which is not an integer$"),
        (lambda ids: ids.update({"<code_1>": 7.0}), r"the id of '<code_1>' is 7.0, which is not an integer$"),
        (lambda ids: swap(ids, "<s>", "<pad>"), r"'<pad>' has id 0, where OFA has '<s>'$"),
        (lambda ids: swap(ids, "<mask>", "<s>"), r"'<mask>' has id 0, where OFA has '<s>'$"),
        (lambda ids: swap(ids, "<code_0>", "<code_2>"), r"'<code_2>' has id \d+, where OFA has '<code_0>'$"),
        (lambda ids: swap(ids, "<code_0>", "<bin_0>"), r"'<bin_0>' has id \d+, where OFA has '<code_0>'$"),
        (lambda ids: swap(ids, "<yes>", "<bin_0>"), r"'<yes>' has id \d+, where OFA has '<bin_0>'$"),
        (lambda ids: rename(ids, "<code_0>", "<code_00>"), r"'<code_00>' has id \d+, where OFA has '<code_0>'$"),
        (lambda ids: rename(ids, "<mask>", "<msk>"), r"has no '<mask>', so it is not a vocabulary of OFA$"),
        (lambda ids: swap(ids, "Ġthe", "<yes>"), r"'Ġthe' has id \d+; tokens of text stand before '<mask>'$"),
        (lambda ids: drop_and_close(ids, "Ġthe"), r"'Ġthe', which is a byte or made by merges.txt, has no id$"),
        (lambda ids: drop_and_close(ids, "A"), r"'A', which is a byte or made by merges.txt, has no id$"),
        (
            lambda ids: rename(ids, "madeupword0001", "Ġdunno"),
            r"'Ġdunno' with id \d+ is neither made by merges.txt nor",
        ),
        (lambda ids: rename(ids, "madeupword0001", "12345"), r"'12345' with id \d+ is neither made by merges.txt nor"),
        (
            lambda ids: rename(ids, "madeupword0001", "<bin_7>"),
            r"'<bin_7>' stands before '<mask>', where OFA has tokens",
        ),
        (lambda ids: swap(ids, "madeupword0001", "<code_0>"), r"'<code_0>' stands before '<mask>', where OFA has"),
        (lambda ids: rename(ids, "<yes>", "oh yes"), r"extra token 'oh yes' is empty or holds white space"),
        (lambda ids: rename(ids, "<yes>", "\ud83d"), r"'\\ud83d' holds half a character$"),
        (lambda ids: ids.clear(), r"has no '<mask>'"),
    ],
)
def test_a_vocabulary_that_is_not_ofas_is_refused_by_file_and_token(tmp_path: Path, edit: Edit, message: str) -> None:
    files = in_one_file(vocabulary_to_huggingface(small_tokenizer(**LAYOUTS["extra"])))
    ids = json.loads(files["vocab.json"])
    edit(ids)
    source = written(tmp_path / "theirs", files | {"vocab.json": json.dumps(ids).encode()})
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(source / 'vocab.json'))}:? {message}"):
        vocabulary_from_huggingface(source)


@pytest.mark.parametrize("name", ["<unused_0>", "madeupword12345"])
def test_a_placeholder_may_have_another_name(tmp_path: Path, name: str) -> None:
    tokenizer = small_tokenizer(**LAYOUTS["codes"])
    files = vocabulary_to_huggingface(tokenizer)
    ids = json.loads(files["vocab.json"])
    rename(ids, "madeupword0001", name)
    back = read_again(tmp_path / "theirs", files | {"vocab.json": json.dumps(ids).encode()})
    assert back.vocabulary.id_of(name) == tokenizer.vocabulary.id_of("madeupword0001")
    assert back.encode(f" the {name}") == tokenizer.encode(f" the {name}")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"<mask>": 5}, r"'<mask>' has two ids, \d+ and 5$"),
        ({"<other>": 5}, r"'<other>' and '.+' both have id 5$"),
        ({"<other>": 100000}, r"no token has id \d+; the next, '<other>', has 100000$"),
        ([["<other>", 5]], "expected one JSON object from token to integer id$"),
        ({"<other>": {"id": 5}}, r"the id of '<other>' is .*, which is not an integer$"),
    ],
)
def test_a_wrong_file_of_added_tokens_is_named(tmp_path: Path, added: Any, message: str) -> None:
    files = vocabulary_to_huggingface(small_tokenizer(**LAYOUTS["codes"]))
    source = written(tmp_path / "theirs", files | {"added_tokens.json": json.dumps(added).encode()})
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(source / 'added_tokens.json'))}: {message}"):
        vocabulary_from_huggingface(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", None, r": cannot be read \(No such file or directory\)$"),
        ("vocab.json", b"\xff", r": not UTF-8 at byte 0$"),
        ("vocab.json", b'{\n"<s>": 0,\n', r":\d: not JSON"),
        ("vocab.json", b'["<s>"]', r": expected one JSON object from token to integer id$"),
        ("vocab.json", b'{"<s>": 0, "<s>": 1}', r": '<s>' has two ids, 0 and 1$"),
        ("merges.txt", None, r": cannot be read \(No such file or directory\)$"),
        ("merges.txt", b"#version: 0.2\na b c\n", r":2: expected two symbols separated by a space, found 'a b c'$"),
        ("merges.txt", "Ġt he\n".encode(), r": BPE merge 1 .* needs 'Ġt', which has no id$"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    files = vocabulary_to_huggingface(small_tokenizer(**LAYOUTS["codes"]))
    del files[name]
    source = written(tmp_path / "theirs", files | ({name: content} if content is not None else {}))
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(source / name))}{message}"):
        vocabulary_from_huggingface(source)


def test_merges_that_were_cut_off_are_noticed(tmp_path: Path) -> None:
    files = vocabulary_to_huggingface(small_tokenizer(**LAYOUTS["codes"]))
    *kept, last, _ = files["merges.txt"].decode().split("\n")
    source = written(tmp_path / "theirs", files | {"merges.txt": "\n".join(kept).encode()})
    made = re.escape(last.replace(" ", ""))
    with pytest.raises(CheckpointError, match=rf"vocab\.json: '{made}' with id \d+ is neither made by merges\.txt nor"):
        vocabulary_from_huggingface(source)


def test_a_tokenizer_of_another_kind_has_no_such_files(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    lines = "".join(f"{number} 1\n" for number in range(len(pieces)))
    directory = written(
        tmp_path / "bert", {"vocab.txt": "\n".join(pieces).encode() + b"\n", "dict.txt": lines.encode()}
    )
    with pytest.raises(CheckpointError, match="hold byte-level BPE, not the 'bert' kind"):
        vocabulary_to_huggingface(Tokenizer.from_dir(directory, code_dict_size=0))


def test_two_tokens_that_would_look_alike_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'Ġthe' would stand twice in vocab\.json, with ids \d+ and \d+$"):
        vocabulary_to_huggingface(small_tokenizer(code_dict_size=0, num_bins=2, extra_tokens=("Ġthe",)))


def test_tokens_of_text_without_an_id_are_refused(tmp_path: Path) -> None:
    source = small_vocabulary_dir()
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    *kept, _ = (line for line in files["dict.txt"].decode().splitlines(keepends=True) if "madeup" not in line)
    directory = written(tmp_path / "fairseq", files | {"dict.txt": "".join(kept).encode()})
    with pytest.raises(CheckpointError, match=r"^1 tokens of text have no id, which vocab\.json needs: '.+'$"):
        vocabulary_to_huggingface(Tokenizer.from_dir(directory, code_dict_size=0))
