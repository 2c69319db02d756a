"""Every kind of checkpoint that people hold becomes the same weights; what is none of them is told so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import fairseq_content, quick_config, random_state
from safetensors.torch import save_file
from torch import Tensor

import ofa_core
from checkpoints_convert import convert, export, save_fairseq, to_fairseq
from checkpoints_convert.cli import main
from checkpoints_convert.huggingface import config_to_huggingface, state_to_huggingface, vocabulary_to_huggingface
from checkpoints_convert.names import DROPPED, TIED
from checkpoints_convert.sources import open_source
from ofa_core import CheckpointError, OFAConfig, Tokenizer
from ofa_core.checkpoint.model_dir import load_config, read_safetensors
from ofa_core.text import small_vocabulary_dir

CONFIG = quick_config()
convert_module = sys.modules["checkpoints_convert.convert"]  # the package has a function of that name
#: Bare state dicts say nothing of codes, so the model they are tested with has the usual number of them.
USUAL = quick_config(
    vocab_size=len(Tokenizer.from_dir(small_vocabulary_dir())),
    task=CONFIG.task.model_copy(update={"code_dict_size": 8192}),
)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def converted(source: Path, out: Path, **options: Any) -> dict[str, Tensor]:
    """The weights of the directory that ``source`` becomes."""
    convert(source, out, **options)
    return read_safetensors(out / "model.safetensors")


def huggingface_directory(directory: Path, config: OFAConfig = CONFIG, *, safetensors: bool = False) -> Path:
    directory.mkdir()
    state = state_to_huggingface(to_fairseq(random_state(config), config))
    if safetensors:
        apart = {name: tensor.clone() for name, tensor in state.items()}
        save_file(apart, directory / "model.safetensors")
    else:
        torch.save(state, directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps(config_to_huggingface(config)))
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=config.task.code_dict_size)
    for name, content in vocabulary_to_huggingface(tokenizer).items():
        (directory / name).write_bytes(content)
    return directory


# Kinds


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
@pytest.mark.parametrize("names", ["fairseq", "Hugging Face"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_bare_state_dict_is_recognised(tmp_path: Path, prefix: str, names: str, zipped: bool) -> None:
    state = to_fairseq(random_state(USUAL), USUAL)
    state = state if names == "fairseq" else state_to_huggingface(state)
    content = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    given = prefix if prefix == "module.model." else None  # what a Trainer writes needs no word
    found = converted(tmp_path / "pytorch_model.bin", tmp_path / "out", bpe_dir=small_vocabulary_dir(), prefix=given)
    assert_equal(found, random_state(USUAL))
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["source_kind"] == "state dict without arguments"


@pytest.mark.parametrize("safetensors", [False, True])
def test_a_hugging_face_style_directory_brings_its_vocabulary(tmp_path: Path, safetensors: bool) -> None:
    source = huggingface_directory(tmp_path / "hf", safetensors=safetensors)
    assert_equal(converted(source, tmp_path / "out"), random_state(CONFIG))
    assert load_config(tmp_path / "out") == CONFIG
    ours = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    theirs = ofa_core.load(tmp_path / "out").tokenizer
    text = ' which region does the text " a red circle " describe? ünïcödé 你好'
    assert theirs.encode(text) == ours.encode(text)
    assert theirs.decode(theirs.encode(text)) == text


def test_a_legacy_fairseq_file_equals_its_zip_twin(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    torch.save(content, tmp_path / "new.pt")
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    new, old = (
        converted(tmp_path / name, tmp_path / f"{name}.dir", bpe_dir=small_vocabulary_dir())
        for name in ("new.pt", "old.pt")
    )
    assert_equal(old, new)


# Moving averages


def with_average() -> dict[str, Any]:
    """A fairseq checkpoint whose moving average is the model plus one, and plus two in its float32 copy."""
    content = fairseq_content(CONFIG)
    model = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in content["model"].items()}
    floats = [name for name, tensor in model.items() if tensor.is_floating_point() and "running" not in name]
    ema = model | {name: model[name] + 1 for name in floats}
    exact = {name: model[name].float() + 2 for name in floats}
    return content | {"model": model, "extra_state": {"ema": ema, "ema_fp32_params": exact}}


@pytest.mark.parametrize(("weights", "added", "dtype"), [
    ("model", 0, torch.float16),
    ("ema", 1, torch.float16),
    ("ema-fp32", 2, torch.float32),
])  # fmt: skip
def test_the_weights_asked_for_are_taken(
    tmp_path: Path, weights: Any, added: int, dtype: torch.dtype, capsys: Any
) -> None:
    torch.save(with_average(), tmp_path / "ema.pt")
    command = [str(tmp_path / "ema.pt"), str(tmp_path / "out"), "--bpe-dir", str(small_vocabulary_dir())]
    assert main([*command, "--weights", weights]) == 0
    assert ("--weights ema takes it instead" in capsys.readouterr().out) == (weights == "model")
    found = read_safetensors(tmp_path / "out" / "model.safetensors")
    expected = random_state(CONFIG)["encoder.image_proj.weight"].half()
    assert found["encoder.image_proj.weight"].dtype == dtype
    assert torch.equal(found["encoder.image_proj.weight"], (expected.to(dtype) + added))
    running = random_state(CONFIG)["encoder.image_stem.bn1.running_mean"].half()
    assert torch.equal(found["encoder.image_stem.bn1.running_mean"], running)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["weights"] == weights


def without_average(tmp_path: Path) -> Path:
    save_fairseq(tmp_path / "x.pt", random_state(CONFIG), CONFIG)
    return tmp_path / "x.pt"


def foreign_average(tmp_path: Path) -> Path:
    content = with_average()
    content["extra_state"]["ema"]["encoder.other"] = torch.zeros(1)
    torch.save(content, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def bare(tmp_path: Path) -> Path:
    torch.save(to_fairseq(random_state(CONFIG), CONFIG), tmp_path / "x.bin")
    return tmp_path / "x.bin"


NO_AVERAGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "none stored": (without_average, "has no ema in its extra_state to take with --weights ema"),
    "another model's": (foreign_average, "the moving average holds encoder.other, which the model does not"),
    "a bare state dict": (bare, "is a state dict without arguments: it has no moving average"),
}


@pytest.mark.parametrize("case", NO_AVERAGE)
def test_an_average_that_is_not_there_is_refused(tmp_path: Path, case: str) -> None:
    make, message = NO_AVERAGE[case]
    with pytest.raises(CheckpointError, match=message):
        open_source(make(tmp_path), "ema")


# What is none of them


def empty_directory(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


def our_directory(tmp_path: Path) -> Path:
    convert(without_average(tmp_path), tmp_path / "x", bpe_dir=small_vocabulary_dir())
    return tmp_path / "x"


def mixed_prefix(tmp_path: Path) -> Path:
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.bin")
    return tmp_path / "x.bin"


def broken_settings(tmp_path: Path) -> Path:
    source = huggingface_directory(tmp_path / "x")
    (source / "config.json").write_text("{")
    return source


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an empty directory": (empty_directory, "it should hold config.json, vocab.json, merges.txt and pytorch_model.bin"),
    "our own directory": (our_directory, "it is a model directory already; ofa_core.load takes it as it is"),
    "settings that are not JSON": (broken_settings, "config.json is not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_none_of_them_is_told_so(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message):
        open_source(make(tmp_path))


def test_a_prefix_that_some_names_lack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"entry b does not begin with the prefix 'model\.'"):
        open_source(mixed_prefix(tmp_path), prefix="model.")


# And back


@pytest.mark.parametrize("to", ["fairseq", "hf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_way_there_and_back_is_exact(tmp_path: Path, to: str, dtype: torch.dtype) -> None:
    first = converted(without_average(tmp_path), tmp_path / "first", bpe_dir=small_vocabulary_dir(), dtype=dtype)
    export(tmp_path / "first", tmp_path / "there", to)
    second = converted(tmp_path / "there", tmp_path / "back", bpe_dir=None if to == "hf" else small_vocabulary_dir())
    assert_equal(second, first)
    assert load_config(tmp_path / "back").model_dump(exclude={"task"}) == CONFIG.model_dump(exclude={"task"})


@pytest.mark.parametrize("to", ["fairseq", "hf"])
def test_prompts_of_its_own_go_there_and_back(tmp_path: Path, to: str) -> None:
    directory = tmp_path / "first"
    converted(without_average(tmp_path), directory, bpe_dir=small_vocabulary_dir())
    config = load_config(directory)
    prompts = {"caption": " what is it?"}
    own = config.model_copy(update={"task": config.task.model_copy(update={"prompts": prompts})})
    (directory / "config.json").write_text(own.model_dump_json())
    (directory / "SHA256SUMS").unlink()
    export(directory, tmp_path / "there", to)
    converted(tmp_path / "there", tmp_path / "back", bpe_dir=None if to == "hf" else small_vocabulary_dir())
    assert load_config(tmp_path / "back").task.prompts == prompts


def test_an_export_writes_over_nothing(tmp_path: Path, capsys: Any) -> None:
    directory = our_directory(tmp_path)
    assert main([str(directory), str(tmp_path / "x.pt"), "--to", "fairseq"]) == 2
    assert capsys.readouterr().err == f"convert-ckpt: {tmp_path / 'x.pt'} exists already; choose another name\n"
    with pytest.raises(CheckpointError, match="models can be written to fairseq or hf, not to 'onnx'"):
        export(directory, tmp_path / "new", "onnx")


def test_a_fairseq_export_holds_what_the_original_reads(tmp_path: Path) -> None:
    export(our_directory(tmp_path), tmp_path / "there.pt", "fairseq")
    content = torch.load(tmp_path / "there.pt", weights_only=False)
    assert {"args", "cfg", "model", "extra_state", "last_optimizer_state", "task_state", "optimizer_history"} <= set(
        content
    )
    assert content["cfg"]["model"].encoder_embed_dim == CONFIG.embed_dim
    assert content["cfg"]["task"]["_name"] == CONFIG.task.name
    state = content["model"]
    assert state["decoder.output_projection.weight"].data_ptr() == state["encoder.embed_tokens.weight"].data_ptr()
    assert state["encoder.token_rp_bucket"].shape == (128, 128)


# Loaded as they are


def test_any_checkpoint_loads_and_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OFA_BPE_DIR", str(small_vocabulary_dir()))
    for source, kind in (
        (without_average(tmp_path), "fairseq checkpoint"),
        (huggingface_directory(tmp_path / "hf"), "Hugging Face style directory"),
    ):
        assert_equal(dict(ofa_core.load(source).model.state_dict()), random_state(CONFIG))
        assert f"{source} is a {kind}; converted once to {tmp_path / 'cache'}" in capsys.readouterr().err
        assert_equal(dict(ofa_core.load(source).model.state_dict()), random_state(CONFIG))
        assert capsys.readouterr().err == ""


def test_a_checkpoint_that_changed_is_converted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OFA_BPE_DIR", str(small_vocabulary_dir()))
    for seed in (0, 1):
        save_fairseq(tmp_path / "x.pt", random_state(CONFIG, seed), CONFIG)
        assert_equal(dict(ofa_core.load(tmp_path / "x.pt").model.state_dict()), random_state(CONFIG, seed))


# What the program says


def run(capsys: Any, *arguments: object) -> tuple[int, str]:
    code = main([*map(str, arguments), "--bpe-dir", str(small_vocabulary_dir())])
    printed = capsys.readouterr()
    return code, printed.out or printed.err


def test_a_dry_run_names_what_it_would_drop_and_writes_nothing(tmp_path: Path, capsys: Any) -> None:
    source = without_average(tmp_path)
    code, printed = run(capsys, source, tmp_path / "out", "--dry-run")
    assert code == 0
    for name in (*DROPPED, *TIED):
        assert f"dropped: {name} (" in printed
    assert printed.endswith("nothing was written (--dry-run)\n")
    assert list(tmp_path.iterdir()) == [source]


def test_the_result_is_verified(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = without_average(tmp_path)
    code, printed = run(capsys, source, tmp_path / "out", "--verify")
    assert code == 0
    assert f"verified: all {len(random_state(CONFIG))} tensors are as in the source" in printed

    def damaged(path: Path) -> dict[str, Tensor]:
        return {name: tensor + 1 for name, tensor in read_safetensors(path).items()}

    monkeypatch.setattr(convert_module, "read_safetensors", damaged)
    code, printed = run(capsys, source, tmp_path / "other", "--verify")
    assert code == 2
    assert f"{len(random_state(CONFIG))} entries are not what was converted" in printed


def test_the_summary_as_json(tmp_path: Path, capsys: Any) -> None:
    code, printed = run(capsys, without_average(tmp_path), tmp_path / "out", "--json")
    found = json.loads(printed)
    assert code == 0
    assert (found["kind"], found["written"], found["verified"]) == ("fairseq checkpoint", True, False)
    assert found["config"]["embed_dim"] == CONFIG.embed_dim
    assert found["tensors"] == len(random_state(CONFIG))


@pytest.mark.parametrize(("arch", "message"), [
    ("base", "this is not OFA base: its embed_dim is 32, not 768"),
    ("giant", "invalid choice: 'giant'"),
])  # fmt: skip
def test_a_size_that_it_is_not_is_refused(tmp_path: Path, capsys: Any, arch: str, message: str) -> None:
    try:
        code, printed = run(capsys, without_average(tmp_path), tmp_path / "out", "--arch", arch)
    except SystemExit as error:
        code, printed = int(error.code or 0), capsys.readouterr().err
    assert code == 2
    assert message in printed
    assert not (tmp_path / "out").exists()


def test_a_genuine_checkpoint_comes_back_entry_by_entry(
    tmp_path: Path, genuine_checkpoints: dict[str, Path], official_bpe: Path
) -> None:
    for name, path in genuine_checkpoints.items():
        convert(path, tmp_path / name, bpe_dir=official_bpe)
        export(tmp_path / name, tmp_path / f"{name}.pt", "fairseq")
        assert_equal(dict(open_source(tmp_path / f"{name}.pt").state), dict(open_source(path).state))


#: Arguments of a genuine file that say how it was trained and run, and where its data were: not the model's.
NOT_THE_MODELS = ("pad", "eos", "unk", "pooler_dropout", "no_seed_provided")


def test_a_fairseq_export_has_every_argument_the_models_own_parser_sets(
    tmp_path: Path, genuine_checkpoints: dict[str, Path]
) -> None:
    genuine = open_source(genuine_checkpoints["refcoco_cfg"])
    names = list(genuine.args)
    own = [
        *names[names.index("encoder_normalize_before") :],
        "no_cross_attention",
        "encoder_layerdrop",
        "quant_noise_pq",
    ]
    export(our_directory(tmp_path), tmp_path / "there.pt", "fairseq")
    written = open_source(tmp_path / "there.pt").args
    prompts = [name for name in own if "_prompt_" in name]  # read only where there is a prompt
    assert [name for name in own if name not in written and name not in (*NOT_THE_MODELS, *prompts)] == []
    content = torch.load(tmp_path / "there.pt", weights_only=False)
    assert content["optimizer_history"][-1]["num_updates"] == 0
    assert content["extra_state"]["train_iterator"]["epoch"] == 1
