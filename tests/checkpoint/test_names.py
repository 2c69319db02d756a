"""Names of models: paths, released checkpoints and repositories of the hub, all against a server of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint.web import COMMIT, Repo, Web
from reference import fairseq_content, quick_config, random_state
from torch import Tensor

import ofa_core
from checkpoints_convert import to_fairseq
from checkpoints_convert.cli import main as convert_main
from checkpoints_convert.huggingface import config_to_huggingface, state_to_huggingface, vocabulary_to_huggingface
from ofa_core import CheckpointError, Tokenizer
from ofa_core.api import model_directory
from ofa_core.checkpoint import hub
from ofa_core.checkpoint.cache import cache_directory, downloaded, list_entries, remove_entries
from ofa_core.checkpoint.names import is_name, locate
from ofa_core.checkpoint.released import released
from ofa_core.cli.main import main
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.settings import TrainingSettings

CONFIG = quick_config()


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    """A small fairseq checkpoint."""
    torch.save(fairseq_content(CONFIG), tmp_path / "made.pt")
    return (tmp_path / "made.pt").read_bytes()


@pytest.fixture
def refcoco(web: Web, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The server with a small model in the place of a released one."""
    web.files["/checkpoints/refcoco_large_best.pt"] = checkpoint
    monkeypatch.setenv("OFA_BPE_DIR", str(small_vocabulary_dir()))
    return web


def hub_files(directory: Path) -> dict[str, bytes]:
    """The files of a small model in Hugging Face style."""
    torch.save(state_to_huggingface(to_fairseq(random_state(CONFIG), CONFIG)), directory / "x.bin")
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    return {
        "config.json": json.dumps(config_to_huggingface(CONFIG)).encode(),
        "pytorch_model.bin": (directory / "x.bin").read_bytes(),
        "README.md": b"# a model",
        "model.onnx": b"x" * 1000,
        **vocabulary_to_huggingface(tokenizer),
    }


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Released files


def test_a_released_checkpoint_loads_by_its_name(refcoco: Web) -> None:
    for _ in range(2):
        ofa = ofa_core.load("refcoco_large_best")
        assert equal(dict(ofa.model.state_dict()), random_state(CONFIG))
    assert len(refcoco.gets()) == 1
    names = {entry.part: entry.name for entry in list_entries()}
    assert names["downloads"] == "refcoco_large_best.pt"
    assert names["converted"].startswith("refcoco_large_best-")


def test_the_file_may_go_where_the_conversion_is_there(refcoco: Web) -> None:
    first = model_directory("refcoco_large_best")
    downloaded("refcoco_large_best.pt").unlink()
    assert model_directory("refcoco_large_best") == first
    assert len(refcoco.gets()) == 1
    assert {entry.part for entry in remove_entries("refcoco_large_best")} == {"converted"}
    assert model_directory("refcoco_large_best") == first
    assert len(refcoco.gets()) == 2


def test_another_file_that_was_put_there_by_hand_is_converted(refcoco: Web, tmp_path: Path) -> None:
    first = model_directory("refcoco_large_best")
    remove_entries("refcoco_large_best")
    torch.save(fairseq_content(CONFIG, more=[1, 2, 3]), downloaded("refcoco_large_best.pt"))
    assert model_directory("refcoco_large_best") != first
    assert len(refcoco.gets()) == 1


def test_convert_ckpt_takes_a_name(refcoco: Web, tmp_path: Path) -> None:
    assert convert_main(["refcoco_large_best", str(tmp_path / "out")]) == 0
    assert equal(dict(ofa_core.load(tmp_path / "out").model.state_dict()), random_state(CONFIG))
    assert convert_main(["refcoco_base_best", str(tmp_path / "out")]) == 2
    assert len(refcoco.gets()) == 1  # nothing is downloaded for a directory that is there


def test_commands_take_a_name(refcoco: Web, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", "refcoco_large_best"]) == 0
    assert "refcoco_large_best.pt" in capsys.readouterr().out


def test_a_recipe_takes_a_name(web: Web, tmp_path: Path) -> None:
    def model_of(name: str) -> Path | None:
        (tmp_path / "x.toml").write_text(f'model = "{name}"\nout = "run"\nsteps = 1\ndata = [{{ task = "shapes" }}]\n')
        return TrainingSettings.from_toml(tmp_path / "x.toml").model

    for name in ("refcoco_large_best", "OFA-Sys/ofa-base", "hf:me/x@v1", "demo"):
        assert model_of(name) == Path(name)
    assert model_of("nowhere") == tmp_path / "nowhere"
    (tmp_path / "demo").mkdir()
    assert model_of("demo") == tmp_path / "demo"


def test_a_path_wins_over_a_name(web: Web, small_directory: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("refcoco_large_best", "OFA-Sys/ofa-base", "demo"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(small_directory)
        assert model_directory(name) == Path(name)
    assert web.asked == []


UNKNOWN = {
    "refcoco_large": r"is no released checkpoint \(ofa-core models.*; nearest: .*refcoco_large_best",
    "ofa-base": r"nearest: ofa_base, ofa_cn_base, OFA-Sys/ofa-base$",
    "me/my-ofa": r"nearest: .*; a repository of the hub is hf:me/my-ofa$",
    "./refcoco": r"\./refcoco does not exist; it should be a directory written by convert-ckpt, or a checkpoint$",
    "/none/x": r"/none/x does not exist; it should be",
    "runs/a/last": r"runs/a/last does not exist; it should be",
    "src/none": r"src/none does not exist; it should be",
    "refcoco_large_best.pt": r"does not exist; .*the released checkpoint of this name is refcoco_large_best, with",
    "hf:nonsense": r"'hf:nonsense' names no repository: hf:org/name, hf:org/name@revision or",
    "hf:a/b@": r"names no repository",
    "bart_base": r"bart_base is a language model without pictures, not an OFA",
    "damo/ofa_mmspeech_pretrain_base_zh": r"is MMSpeech: it reads speech",
    "damo/ofa_visual-grounding_refcoco_large_en": r"modelscope download --model damo/ofa_visual-gr",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_name_is_one_line(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    with pytest.raises(CheckpointError, match=UNKNOWN[name]) as caught:
        ofa_core.load(name)
    assert "\n" not in str(caught.value)
    assert web.asked == []
    assert not cache_directory().exists()


def test_every_released_checkpoint_can_be_had_or_is_refused_with_the_reason(web: Web) -> None:
    assert len(released()) == 72
    for name, entry in released().items():
        assert is_name(name)
        if entry.family in ("fairseq", "mmpretrain"):
            with pytest.raises(CheckpointError, match=r"answers 404"):
                locate(name)
            assert web.gets()[-1][0].endswith(f"/{entry.file}")
        elif entry.family != "hub":
            with pytest.raises(CheckpointError, match=rf"^{name} (is|lies)"):
                locate(name)


def test_a_digest_in_a_files_name_is_compared(web: Web) -> None:
    entry = released()["ofa-base_3rdparty-finetuned_refcoco"]
    web.files[entry.url.removeprefix("https://download.openmmlab.com")] = b"something else"
    with pytest.raises(CheckpointError, match=r"its sha256 is not 2797d3ab\.\.\."):
        locate(entry.name)


# The hub: through its own client, in a process of its own, since it reads its environment once


def run(web: Web, tmp_path: Path, code: str, **changes: str) -> tuple[str, str]:
    """What a process printed that runs ``code``: on stdout, and on stderr."""
    environment = {"HF_ENDPOINT": web.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_of_a_test", "HF_HUB_DISABLE_TELEMETRY": "1"} | changes
    done = subprocess.run(
        [sys.executable, "-c", f"import ofa_core, os\n{code}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


LOAD = """
for name in {names!r}:
    try:
        ofa = ofa_core.load(name)
        print(name, ofa.model.config.embed_dim, ofa.tokenizer.encode("a dog"))
    except ofa_core.CheckpointError as error:
        print(name, error)
"""


def test_a_model_of_the_hub_loads_end_to_end(web: Web, tmp_path: Path) -> None:
    web.repos["OFA-Sys/ofa-base"] = Repo(hub_files(tmp_path), {"main": COMMIT, "v1": COMMIT})
    names = ["OFA-Sys/ofa-base", "hf:OFA-Sys/ofa-base@v1", f"hf:OFA-Sys/ofa-base@{COMMIT}"]
    out, err = run(web, tmp_path, LOAD.format(names=names))
    ids = Tokenizer.from_dir(small_vocabulary_dir()).encode("a dog")
    assert out.splitlines() == [f"{name} {CONFIG.embed_dim} {ids}" for name in names]
    assert err.count("is a Hugging Face style directory; converted once to") == 1
    taken = {path.rsplit("/", 1)[-1] for path, _ in web.gets("/resolve/")}
    assert taken == {"config.json", "pytorch_model.bin", "vocab.json", "merges.txt", "added_tokens.json"} & taken
    assert {"config.json", "pytorch_model.bin", "vocab.json", "merges.txt"} <= taken

    # offline, by the switch and without a network: what the hub's cache has is enough
    asked = len(web.asked)
    for changes in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        out, _ = run(web, tmp_path, LOAD.format(names=[*names[:1], "hf:me/other"]), **changes)
        loaded, missing = out.splitlines()
        assert loaded == f"{names[0]} {CONFIG.embed_dim} {ids}"
        assert "/me/other cannot be reached (or offline mode is on), and it is not in the hub's cache" in missing
    assert len(web.asked) == asked


def test_a_repository_of_one_checkpoint_and_of_several(web: Web, tmp_path: Path, checkpoint: bytes) -> None:
    vocabulary = {path.name: path.read_bytes() for path in small_vocabulary_dir().iterdir() if path.is_file()}
    web.repos["me/one"] = Repo({"best.pt": checkpoint, "log.txt": b"x", **vocabulary})
    web.repos["me/two"] = Repo({"a.pt": checkpoint, "b.pt": checkpoint, **vocabulary})
    web.repos["me/none"] = Repo({"log.txt": b"x"})
    names = ["hf:me/one", "hf:me/two", "hf:me/two/b.pt", "hf:me/two/c.pt", "hf:me/none", "hf:me/gone", "hf:me/one@v9"]
    out, _ = run(web, tmp_path, LOAD.format(names=names))
    one, two, named, absent, none, gone, revision = out.splitlines()
    assert one.startswith(f"hf:me/one {CONFIG.embed_dim} ")
    assert two == "hf:me/two hf:me/two holds a.pt, b.pt; name one: hf:me/two/a.pt"
    assert named.startswith(f"hf:me/two/b.pt {CONFIG.embed_dim} ")
    assert absent.endswith("hf:me/two/c.pt has no c.pt")
    assert none.endswith("hf:me/none holds no weights of OFA, such as model.safetensors or pytorch_model.bin")
    assert "hf:me/gone: there is none, or it is private: log in" in gone
    assert revision.endswith("hf:me/one@v9: there is no revision 'v9'")
    assert not [path for path, _ in web.gets("/me/two/resolve/") if path.endswith("a.pt")]


def test_without_the_client_one_line_says_how_to_install_it(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"needs huggingface_hub: pip install huggingface_hub \(or download"):
        ofa_core.load("OFA-Sys/ofa-base")
    with pytest.raises(CheckpointError, match=r"should be org/name"):
        hub.upload(Path("."), "me/x@v1", private=False, message="")
