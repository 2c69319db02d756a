"""A state dict is found whatever it is wrapped in, and what cannot be one is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import fairseq_content, quick_config, random_state
from safetensors.torch import save_file
from torch import Tensor, nn

from checkpoints_convert import convert, to_fairseq
from checkpoints_convert.cli import main
from checkpoints_convert.hub_settings import CARD_SIDES
from checkpoints_convert.huggingface import config_to_huggingface, state_to_huggingface
from checkpoints_convert.mmpretrain import FROM_MMPRETRAIN
from checkpoints_convert.sources import open_source
from ofa_core import CheckpointError, OFAConfig, Tokenizer, UnsafePickleError
from ofa_core.checkpoint.model_dir import read_safetensors, unshare_tensors
from ofa_core.text import small_vocabulary_dir

#: Bare state dicts say nothing of codes, so the model has the usual number of them.
TASK = quick_config().task.model_copy(update={"code_dict_size": 8192})
CONFIG = quick_config(vocab_size=len(Tokenizer.from_dir(small_vocabulary_dir())), task=TASK)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return to_fairseq(random_state(CONFIG), CONFIG)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_same_weights(found: Any, state: dict[str, Tensor]) -> None:
    kept = {name: tensor for name, tensor in found.items() if name in state}
    assert set(kept) == set(state)
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())


Write = Callable[[Path, dict[str, Tensor]], Path]


def pickled(make: Callable[[dict[str, Tensor]], Any], name: str = "x.pt") -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        torch.save(make(state), folder / name)
        return folder / name

    return write


def safetensors(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file(unshare_tensors(state), folder / "model.safetensors")
    return folder / "model.safetensors"


def trainers_directory(folder: Path, state: dict[str, Tensor]) -> Path:
    directory = folder / "checkpoint-500"
    directory.mkdir()
    safetensors(directory, prefixed(state, "model."))
    (directory / "trainer_state.json").write_text("{}")
    torch.save({"state": {}}, directory / "optimizer.pt")
    return directory


def halves(folder: Path, state: dict[str, Tensor], suffix: str) -> Path:
    """A directory whose weights are in two files with an index."""
    directory = folder / "halves"
    directory.mkdir()
    weight_map = {}
    names = list(state)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-0000{number}-of-00002.{suffix}"
        tensors = unshare_tensors({name: state[name] for name in part})
        save_file(tensors, directory / file) if suffix == "safetensors" else torch.save(tensors, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return directory


def zipped(folder: Path, state: dict[str, Tensor]) -> Path:
    inner = pickled(dict, "ofa.pt")(folder, state)
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "release/ofa.pt")
        archive.writestr("release/README.md", "weights")
    inner.unlink()
    return folder / "x.zip"


WRAPPED: dict[str, Write] = {
    **{
        f"under {key}": pickled(lambda state, key=key: {key: state, "epoch": 3})
        for key in ("model", "state_dict", "model_state_dict", "module")
    },
    **{
        f"prefix {prefix}": pickled(lambda state, prefix=prefix: prefixed(state, prefix))
        for prefix in ("module.", "model.", "module.model.", "model.module.")
    },
    "prefix under a key": pickled(lambda state: {"model": prefixed(state, "module."), "optimizer": None}),
    "fairseq with a prefix": pickled(lambda state: fairseq_content(CONFIG, model=prefixed(state, "module."))),
    "safetensors": safetensors,
    "a Trainer's directory": trainers_directory,
    "two pickles with an index": lambda folder, state: halves(folder, state, "bin"),
    "two safetensors with an index": lambda folder, state: halves(folder, state, "safetensors"),
    "the index itself": lambda folder, state: halves(folder, state, "bin") / "pytorch_model.bin.index.json",
    "a zip": zipped,
}


@pytest.mark.parametrize("how", WRAPPED)
def test_the_state_dict_is_found(tmp_path: Path, state: dict[str, Tensor], how: str) -> None:
    assert_same_weights(open_source(WRAPPED[how](tmp_path, state)).state, state)


def test_what_a_zip_held_becomes_a_model_and_nothing_is_left(tmp_path: Path, state: dict[str, Tensor]) -> None:
    source = zipped(tmp_path, state)
    convert(source, tmp_path / "out", bpe_dir=small_vocabulary_dir())
    assert_same_weights(read_safetensors(tmp_path / "out" / "model.safetensors"), random_state(CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]


def test_the_digest_is_of_all_files(tmp_path: Path, state: dict[str, Tensor]) -> None:
    source = halves(tmp_path, state, "bin")
    convert(source, tmp_path / "out", bpe_dir=small_vocabulary_dir())
    files = [source / "pytorch_model.bin.index.json", *sorted(source.glob("*.bin"))]
    expected = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["source_sha256"] == expected


@pytest.mark.parametrize("how", ["bare", "under a key", "fairseq", "a directory"])
def test_a_prefix_may_be_given_for_every_kind(tmp_path: Path, state: dict[str, Tensor], how: str) -> None:
    other = prefixed(state, "net.ofa.")
    if how == "a directory":
        source = tmp_path / "hf"
        source.mkdir()
        torch.save(other, source / "pytorch_model.bin")
    else:
        content = {"bare": other, "under a key": {"state_dict": other}, "fairseq": fairseq_content(CONFIG, model=other)}
        source = pickled(lambda _: content[how])(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"all \d+ entries begin with 'net\.ofa\.', .* --strip-prefix net\.ofa\."):
        open_source(source)
    assert_same_weights(open_source(source, prefix="net.ofa.").state, state)


# mmpretrain

#: mmpretrain's entry -> fairseq's, of one layer of either stack and of what stands once.
MMPRETRAIN = {
    "encoder.layers.0.attn.q_proj.weight": "encoder.layers.0.self_attn.q_proj.weight",
    "encoder.layers.0.attn.c_attn": "encoder.layers.0.self_attn.c_attn",
    "encoder.layers.0.attn_ln.bias": "encoder.layers.0.self_attn_layer_norm.bias",
    "encoder.layers.0.attn_mid_ln.bias": "encoder.layers.0.attn_ln.bias",
    "encoder.layers.0.ffn_ln.weight": "encoder.layers.0.final_layer_norm.weight",
    "encoder.layers.0.ffn_mid_ln.weight": "encoder.layers.0.ffn_layernorm.weight",
    "decoder.layers.0.self_attn.q_proj.weight": "decoder.layers.0.self_attn.q_proj.weight",
    "decoder.layers.0.self_attn_ln.bias": "decoder.layers.0.self_attn_layer_norm.bias",
    "decoder.layers.0.self_attn_mid_ln.bias": "decoder.layers.0.self_attn_ln.bias",
    "decoder.layers.0.cross_attn.k_proj.bias": "decoder.layers.0.encoder_attn.k_proj.bias",
    "decoder.layers.0.cross_attn_ln.bias": "decoder.layers.0.encoder_attn_layer_norm.bias",
    "decoder.layers.0.cross_attn_mid_ln.bias": "decoder.layers.0.cross_attn_ln.bias",
    "decoder.layers.0.ffn_ln.bias": "decoder.layers.0.final_layer_norm.bias",
    "decoder.layers.0.ffn_mid_ln.bias": "decoder.layers.0.ffn_layernorm.bias",
    "encoder.final_ln.bias": "encoder.layer_norm.bias",
    "decoder.final_ln.bias": "decoder.layer_norm.bias",
    "encoder.embedding_ln.bias": "encoder.layernorm_embedding.bias",
    "decoder.embedding_ln.bias": "decoder.layernorm_embedding.bias",
    "encoder.embed_type.weight": "encoder.type_embedding.weight",
    "encoder.image_embedding_ln.bias": "encoder.patch_layernorm_embedding.bias",
    "decoder.code_embedding_ln.bias": "decoder.code_layernorm_embedding.bias",
    "encoder.pos_ln.bias": "encoder.pos_ln.bias",
    "encoder.embed_images.bn1.running_var": "encoder.embed_images.bn1.running_var",
}


def test_mmpretrains_names_are_those_of_the_table(tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert {theirs: FROM_MMPRETRAIN(theirs) for theirs in MMPRETRAIN} == MMPRETRAIN
    back = FROM_MMPRETRAIN.inverse()
    theirs = {f"model.{back(name)}": tensor for name, tensor in state.items()}
    assert_same_weights(open_source(pickled(lambda _: theirs)(tmp_path, state)).state, state)


def test_names_of_two_layouts_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    mixed = state | {"encoder.layers.0.attn_mid_ln.bias": state["encoder.layers.0.attn_ln.bias"]}
    with pytest.raises(CheckpointError, match=r"x\.pt: the checkpoint: \d+ entries are not part of OFA: encoder"):
        open_source(pickled(lambda _: mixed)(tmp_path, state))


# What is refused


def bad_index(change: Callable[[dict[str, Any]], Any]) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        directory = halves(folder, state, "bin")
        index = directory / "pytorch_model.bin.index.json"
        content = json.loads(index.read_text())
        index.write_text(json.dumps(change(content)))
        return directory

    return write


def named(file: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {"weight_map": content["weight_map"] | {"encoder.layer_norm.bias": file}}


def two_in_a_zip(folder: Path, state: dict[str, Tensor]) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("a.pt", "")
        archive.writestr("b.pt", "")
    return folder / "x.zip"


def modelscope(**changes: Any) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        directory = hub_directory(folder)
        content = {"task": "visual-grounding", "model": {"type": "ofa"}} | changes
        (directory / "configuration.json").write_text(json.dumps(content))
        return directory

    return write


def preprocessor(**content: Any) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        directory = hub_directory(folder)
        (directory / "preprocessor_config.json").write_text(json.dumps(content))
        return directory

    return write


def hub_directory(folder: Path, config: OFAConfig = CONFIG) -> Path:
    """A Hugging Face style directory whose config.json says nothing of the task, without vocabulary files."""
    directory = folder / "hub"
    directory.mkdir()
    torch.save(state_to_huggingface(to_fairseq(random_state(config), config)), directory / "pytorch_model.bin")
    silent = {"patch_image_size", "imagenet_default_mean_and_std", "task"}
    settings = {name: value for name, value in config_to_huggingface(config).items() if name not in silent}
    (directory / "config.json").write_text(json.dumps(settings))
    return directory


REFUSED: dict[str, tuple[Write, str]] = {
    "OFASys": (
        pickled(lambda state: {"model": {"encoder.adaptor.image_resnet.conv1.weight": torch.zeros(1)}}),
        "is a checkpoint of OFASys: its inputs go through adaptors of its own",
    ),
    "MMSpeech by its entries": (
        pickled(lambda state: state | {"encoder.fbank_proj.weight": torch.zeros(1)}),
        "is a checkpoint of MMSpeech: it reads speech and phonemes",
    ),
    "MMSpeech by its task": (
        pickled(lambda state: {"cfg": {"task": {"_name": "unify_speech_text_task"}}, "model": state}),
        "is a checkpoint of MMSpeech",
    ),
    "speech of ModelScope": (modelscope(task="auto-speech-recognition"), "is a model of MMSpeech"),
    "a task nobody knows": (modelscope(task="video-captioning"), "has the task 'video-captioning'; known are ofa, "),
    "another model of ModelScope": (modelscope(model={"type": "mplug"}), "of a model of type 'mplug', not 'ofa'"),
    "a search that cannot be": (modelscope(model={"beam_search": {"beam_size": 0}}), "beam_search: "),
    "a language nobody knows": (modelscope(model={"language": "fr"}), "has language 'fr'; en and zh"),
    "pictures that are no squares": (preprocessor(size={"height": 3, "width": 4}), "OFA's pictures are squares"),
    "another normalisation": (preprocessor(image_mean=[0, 0, 0], image_std=[1, 1, 1]), "OFA's pictures have 0.5"),
    "a file that is not there": (bad_index(named("none.bin")), r"none.bin is missing, which pytorch_model"),
    "a file elsewhere": (bad_index(named("../x.bin")), r"names '\.\./x\.bin', which is not a file of weights beside"),
    "an index of nothing": (bad_index(lambda content: {}), "should hold a weight_map"),
    "an entry that no file has": (
        bad_index(lambda c: {"weight_map": c["weight_map"] | {"more": "pytorch_model-00001-of-00002.bin"}}),
        "1 entries are in none of its files: more",
    ),
    "a zip of two": (two_in_a_zip, r"holds several files of weights \(a\.pt, b\.pt\); unzip it and choose one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    tmp_path: Path, state: dict[str, Tensor], case: str
) -> None:
    write, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message) as caught:
        open_source(write(tmp_path, state))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["a layer", "a class of its own", "under a key"])
def test_a_whole_module_is_refused_and_told_what_to_save(tmp_path: Path, kind: str, legacy: bool) -> None:
    module = Own() if kind == "a class of its own" else nn.Sequential(nn.Linear(2, 2))
    content = {"model": module} if kind == "under a key" else module
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafePickleError, match=r"save its state_dict\(\)"):
        open_source(tmp_path / "x.pt")


class Own(nn.Module):
    """A module of a package that no checkpoint names."""


# Settings that files beside config.json tell


def test_modelscopes_settings_are_taken(tmp_path: Path) -> None:
    search = {"beam_size": 8, "max_len_b": 128, "temperature": 0.98, "no_repeat_ngram_size": 3}
    stored = {"type": "ofa", "language": "en", "patch_image_size": 480, "imagenet_default_mean_and_std": True}
    source = modelscope(task="image-captioning", model=stored | {"beam_search": search})(tmp_path, {})
    done = convert(source, tmp_path / "out", bpe_dir=small_vocabulary_dir())
    task = done.config.task
    assert (task.name, task.image_size, task.imagenet_normalization) == ("caption", 480, True)
    assert task.search == {"num_beams": 8, "max_new_tokens": 128, "temperature": 0.98, "no_repeat_ngram_size": 3}
    assert done.assumed == ()


@pytest.mark.parametrize(("stored", "side", "imagenet"), [
    ({"size": {"shortest_edge": 384}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 384, False),
    ({"size": {"height": 256, "width": 256}}, 256, False),
    ({"size": 480, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}, 480, True),
])  # fmt: skip
def test_preprocessors_settings_are_taken(tmp_path: Path, stored: Any, side: int, imagenet: bool) -> None:
    done = convert(preprocessor(**stored)(tmp_path, {}), tmp_path / "out", bpe_dir=small_vocabulary_dir())
    assert (done.config.task.image_size, done.config.task.imagenet_normalization) == (side, imagenet)
    assert done.assumed == ()


def test_without_word_the_side_is_the_cards_and_a_line_says_so(tmp_path: Path, capsys: Any) -> None:
    assert CARD_SIDES == {256: 256, 512: 256, 768: 384, 1024: 480, 1280: 480}
    config = CONFIG.model_copy(update={"embed_dim": 256})
    source = hub_directory(tmp_path, config)
    command = [str(source), str(tmp_path / "out"), "--bpe-dir", str(small_vocabulary_dir())]
    assert main([*command, "--dry-run"]) == 0
    assert (
        "pictures of 256 × 256 pixels are assumed, as this size's public model card uses: the checkpoint does not "
        "tell; --image-size changes it" in capsys.readouterr().out.splitlines()
    )
    assert main([*command, "--image-size", "320"]) == 0
    out = capsys.readouterr().out
    assert "pictures 320 × 320 pixels" in out
    assert "assumed" not in out


# The kind of vocabulary


def chinese_directory(folder: Path) -> Path:
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "图", "片", "a", "##b"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (folder / "dict.txt").write_text("".join(f"{token} 1\n" for token in tokens), encoding="utf-8")
    return folder


@pytest.mark.parametrize("given", [True, False], ids=["--bpe bert", "by its directory"])
def test_a_bare_chinese_model_takes_vocab_txt(tmp_path: Path, given: bool, monkeypatch: Any) -> None:
    folder = chinese_directory(tmp_path / "vocabulary")
    config = quick_config(vocab_size=len(Tokenizer.from_dir(folder)), task=TASK)
    source = pickled(dict)(tmp_path, to_fairseq(random_state(config), config))
    monkeypatch.setenv("OFA_BPE_DIR", str(folder))
    command = ["--bpe", "bert"] if given else ["--bpe-dir", str(folder)]
    assert main([str(source), str(tmp_path / "out"), *command]) == 0
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()


def test_a_kind_that_contradicts_the_checkpoint_is_refused(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    content["cfg"]["task"]["bpe"] = "bert"
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="was trained with bpe='bert', not 'gpt2'; leave --bpe out"):
        convert(tmp_path / "x.pt", tmp_path / "out", bpe="gpt2")
