"""Both exports hold what their readers need, entry for entry and key for key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import quick_config, random_state

from checkpoints_convert import export, read_checkpoint
from ofa_core import OFAConfig, TaskSettings, Tokenizer
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.text import small_vocabulary_dir

#: Names, shapes and order of the entries, by format; a change of them is a change of what others read.
ENTRIES: dict[str, list[str]] = json.loads(Path(__file__).with_name("exported_entries.json").read_text())
CONFIG = quick_config(
    encoder_layers=1,
    decoder_layers=1,
    task=TaskSettings(
        name="refcoco", image_size=64, max_image_size=64, code_dict_size=0, prompts={"caption": " what?"}
    ),
)

FAIRSEQ_KEYS = [
    *("args", "cfg", "model", "criterion", "optimizer_history", "task_state", "extra_state", "last_optimizer_state"),
]
CFG_KEYS = ["_name", "generation", "model", "task"]
#: Settings that the task of the original reads, at the values of the model.
TASK = {
    "_name": "refcoco",
    "patch_image_size": 64,
    "max_image_size": 64,
    "num_bins": 1000,
    "code_dict_size": 0,
    "prompt_type": None,
    "add_object": False,
    "max_object_length": 30,
    "imagenet_default_mean_and_std": False,
    "max_src_length": 128,
    "max_tgt_length": 30,
    "data": None,
    "selected_cols": None,
    "bpe_dir": None,
    "bpe": None,
}
GENERATION_KEYS = [
    *("_name", "beam", "nbest", "max_len_a", "max_len_b", "min_len", "match_source_len", "unnormalized"),
    *("no_early_stop", "no_beamable_mm", "lenpen", "unkpen", "replace_unk", "sacrebleu", "score_reference"),
    *("prefix_size", "no_repeat_ngram_size", "sampling", "sampling_topk", "sampling_topp", "constraints"),
    *("temperature", "diverse_beam_groups", "diverse_beam_strength", "diversity_rate", "print_alignment"),
    *("print_step", "lm_path", "lm_weight", "iter_decode_eos_penalty", "iter_decode_max_iter"),
    *("iter_decode_force_max_iter", "iter_decode_with_beam", "iter_decode_with_external_reranker"),
    *("retain_iter_history", "retain_dropout", "retain_dropout_modules", "decoding_format", "no_seed_provided"),
]
HF_FILES = [
    *("README.md", "added_tokens.json", "config.json", "merges.txt", "preprocessor_config.json"),
    *("pytorch_model.bin", "tokenizer_config.json", "vocab.json"),
]


def model_directory(folder: Path, config: OFAConfig = CONFIG) -> Path:
    """A model directory, made once in a folder."""
    if (folder / "model").is_dir():
        return folder / "model"
    layout = {"code_dict_size": config.task.code_dict_size, "num_bins": config.task.num_bins}
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), **layout)
    save_directory(folder / "model", random_state(config), config, tokenizer)
    return folder / "model"


@pytest.fixture
def fairseq(tmp_path: Path) -> dict[str, Any]:
    export(model_directory(tmp_path), tmp_path / "out.pt", "fairseq")
    return read_checkpoint(tmp_path / "out.pt").content


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    export(model_directory(tmp_path), tmp_path / "out", "hf")
    return tmp_path / "out"


def entries(state: dict[str, Any]) -> list[str]:
    return [f"{name} {list(tensor.shape)}" for name, tensor in state.items()]


def test_a_fairseq_file_has_these_entries(fairseq: dict[str, Any]) -> None:
    assert entries(fairseq["model"]) == ENTRIES["fairseq"]


def test_a_fairseq_file_has_these_keys(fairseq: dict[str, Any]) -> None:
    assert list(fairseq) == FAIRSEQ_KEYS
    assert list(fairseq["cfg"]) == CFG_KEYS
    assert list(fairseq["cfg"]["generation"]) == GENERATION_KEYS


def test_what_evaluation_overrides_is_there_to_be_overridden(fairseq: dict[str, Any]) -> None:
    """The original only overrides settings that the file has, in the task's part and in the model's."""
    assert list(fairseq["cfg"]["task"].items()) == list(TASK.items())
    model = fairseq["cfg"]["model"]
    assert {"data", "selected_cols", "bpe_dir", "patch_image_size"} <= set(model)
    assert (model["patch_image_size"], model["task"], model["_name"]) == (64, "refcoco", "ofa_base")


def test_prompts_of_its_own_stand_where_no_loader_checks_names(fairseq: dict[str, Any], fork: Path) -> None:
    assert "prompts" not in fairseq["cfg"]["task"]
    assert fairseq["cfg"]["model"]["prompts"] == {"caption": " what?"}
    assert json.loads((fork / "config.json").read_text())["prompts"] == {"caption": " what?"}


def test_the_forks_directory_has_these_files_and_entries(fork: Path) -> None:
    assert sorted(path.name for path in fork.iterdir()) == HF_FILES
    state = read_checkpoint(fork / "pytorch_model.bin").content
    assert entries(state) == ENTRIES["hf"]


def test_the_forks_model_has_one_code_position_less_and_no_version(fairseq: dict[str, Any], fork: Path) -> None:
    state = read_checkpoint(fork / "pytorch_model.bin").content
    assert not [name for name in state if name.endswith("version")]
    theirs, originals = state["decoder.image_position_idx"], fairseq["model"]["decoder.image_position_idx"]
    assert len(theirs) == CONFIG.max_target_positions + 1
    assert torch.equal(theirs, originals[:-1])


def test_the_forks_tokenizer_finds_codes_and_bins_among_added_tokens(fork: Path) -> None:
    ids, added = (json.loads((fork / name).read_text()) for name in ("vocab.json", "added_tokens.json"))
    assert max(ids.values()) == ids["<mask>"] == len(ids) - 1
    assert list(added.items()) == [(f"<bin_{i}>", len(ids) + i) for i in range(1000)]


def test_the_forks_tokenizer_reads_symbols_in_a_text(tmp_path: Path) -> None:
    """A byte-level BPE with added tokens, as Hugging Face's own library builds it from the files."""
    transformers = pytest.importorskip("transformers")
    config = quick_config(task=TaskSettings(image_size=64, code_dict_size=9, num_bins=9))
    config = config.model_copy(
        update={"vocab_size": len(Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=9, num_bins=9))}
    )
    export(model_directory(tmp_path, config), tmp_path / "out", "hf")
    (tmp_path / "out" / "tokenizer_config.json").unlink()  # which names a class of the fork alone
    theirs = transformers.BartTokenizer.from_pretrained(tmp_path / "out")
    ours = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=9, num_bins=9)
    found = theirs(" a <bin_3> b <code_7>", add_special_tokens=False)["input_ids"]
    assert ours.vocabulary.id_of("<bin_3>") in found
    assert ours.vocabulary.id_of("<code_7>") in found


def test_the_forks_other_files_say_how_pictures_are_made_and_how_to_load(fork: Path) -> None:
    settings = json.loads((fork / "preprocessor_config.json").read_text())
    assert settings["size"] == {"height": 64, "width": 64}
    assert (settings["image_mean"], settings["image_std"], settings["resample"]) == ([0.5] * 3, [0.5] * 3, 3)
    card = (fork / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: ofa_core\n")
    assert "| task | refcoco |" in card
    assert "ofa_core.load(" in card
    assert json.loads((fork / "tokenizer_config.json").read_text())["tokenizer_class"] == "OFATokenizer"
