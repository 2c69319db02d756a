"""Files that other implementations wrote become models whose logits are theirs."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import CHECKPOINTS, TOLERANCE
from torch import Tensor

import ofa_core
from checkpoints_convert import Conversion, convert, read_checkpoint
from checkpoints_convert.huggingface import vocabulary_from_huggingface, vocabulary_settings
from ofa_core import Tokenizer
from ofa_core.text.tokenizer import FILES

PEERS = CHECKPOINTS / "peers"

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not PEERS.is_dir(), reason=f"other implementations' files are not part of the repository: no {PEERS}"
    ),
]


@dataclass(frozen=True)
class Peer:
    """A file or packed directory, its reference, and what its summary and settings must say."""

    file: str
    kind: str
    reference: str | None = None
    #: The name of the directory of vocabulary files, unpacked; None where it brings its own.
    vocabulary: str | None = None
    #: Settings of the task that differ from the defaults.
    task: Mapping[str, Any] = field(default_factory=dict)
    #: A part of the summary.
    told: str = ""
    language: str = "gpt2"


_ASSUMED = "pictures of 512 × 512 pixels are assumed"
PEERS_FILES: dict[str, Peer] = {
    "the Hugging Face fork": Peer(
        "hf_fork_hub_directory.tgz", "Hugging Face style directory", "hf_fork_hub", told=_ASSUMED
    ),
    "Chinese in Hugging Face style": Peer(
        "cn_hf_directory.tgz", "Hugging Face style directory", "cn_hf", told=_ASSUMED, language="bert"
    ),
    "Chinese of ModelScope": Peer(
        "ms_zh_directory.tgz",
        "ModelScope directory",
        task={
            "name": "refcoco",
            "image_size": 512,
            "imagenet_normalization": False,
            "max_source_tokens": 128,
            "search": {"num_beams": 5, "max_new_tokens": 4, "min_new_tokens": 4, "no_repeat_ngram_size": 3},
        },
        told="task refcoco, pictures 512 × 512 pixels",
        language="bert",
    ),
    "mmpretrain": Peer("mmpretrain.pth.gz", "state dict without arguments", "fp32", "english", told=_ASSUMED),
    "Chinese of fairseq": Peer(
        "ofa_cn_fairseq.pt.gz", "fairseq checkpoint", "cn", "chinese", {"name": "refcoco"}, language="bert"
    ),
    "distributed training": Peer(
        "ddp_module_prefix_model_key.pt.gz", "state dict without arguments", "fp32", "english", told=_ASSUMED
    ),
    "under the key state_dict": Peer(
        "state_dict_key.pt.gz", "state dict without arguments", "fp32", "english", told=_ASSUMED
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official vocabulary, out of the fork's files."""
    folder = tmp_path_factory.mktemp("english")
    fork = unpacked("hf_fork_hub_directory.tgz", folder)
    for name, content in vocabulary_from_huggingface(fork).items():
        (folder / name).write_bytes(content)
    shutil.rmtree(fork)
    return folder


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OFA's own Chinese vocabulary."""
    folder = tmp_path_factory.mktemp("chinese")
    for name in ("vocab.txt", "dict.txt"):
        (folder / name).write_bytes(gzip.decompress((PEERS / "ofa_cn_vocabulary" / f"{name}.gz").read_bytes()))
    return folder


@pytest.fixture
def vocabularies(english: Path, chinese: Path) -> Mapping[str | None, Path | None]:
    return {None: None, "english": english, "chinese": chinese}


def unpacked(file: str, folder: Path) -> Path:
    """The file, or the directory that it packs, in ``folder``."""
    if file.endswith(".tgz"):
        with tarfile.open(PEERS / file) as archive:
            archive.extractall(folder, filter="data")
        return next(path for path in sorted(folder.iterdir()) if path.is_dir())
    path = folder / file.removesuffix(".gz")
    with gzip.open(PEERS / file) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path


def differences(directory: Path, reference: Path) -> float:
    """The largest difference of the logits."""
    wanted: Mapping[str, Tensor] = read_checkpoint(reference).content
    model = ofa_core.load(directory, optimize=False).model
    with torch.inference_mode():
        found = model(wanted["ids"], wanted["dec"], images=wanted["img"])
    return float((found - wanted["logits"]).abs().max())


@pytest.mark.parametrize("name", PEERS_FILES)
def test_it_becomes_the_same_model(
    name: str, vocabularies: Mapping[str | None, Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OFA_BPE_DIR", raising=False)
    peer = PEERS_FILES[name]
    source = unpacked(peer.file, tmp_path)
    done: Conversion = convert(source, tmp_path / "out", bpe_dir=vocabularies[peer.vocabulary])
    assert done.kind == peer.kind
    assert peer.told in "\n".join(done.lines())
    settings = done.config.task.model_dump()
    assert {key: settings[key] for key in peer.task} == dict(peer.task)
    assert ofa_core.load(tmp_path / "out").tokenizer.kind == peer.language
    if peer.reference is not None:
        reference = unpacked(f"{peer.reference}.ref.pt.gz", tmp_path)
        assert differences(tmp_path / "out", reference) <= TOLERANCE[torch.float32]
    shutil.rmtree(tmp_path / "out")


def test_tios_tokenizer_stays(english: Path, tmp_path: Path) -> None:
    source = unpacked("tio_tokenizer.tgz", tmp_path)
    files = vocabulary_from_huggingface(source)
    assert set(files) == set(FILES)
    assert vocabulary_settings(source) == {"code_dict_size": 8192, "num_bins": 1000, "extra_tokens": ()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    text = ' which region does the text " a red circle " describe? ünïcödé 你好'
    theirs, official = Tokenizer.from_dir(tmp_path), Tokenizer.from_dir(english)
    assert theirs.encode(text) == official.encode(text)
    assert len(theirs) == 59457
    assert theirs.encode_symbols("<code_0> <bin_999>") == [50265, 59456]


def test_chinese_texts_have_the_same_ids_from_every_peer(chinese: Path, tmp_path: Path) -> None:
    ids = []
    for file in ("cn_hf_directory.tgz", "ms_zh_directory.tgz"):
        folder = tmp_path / file
        folder.mkdir()
        files = vocabulary_from_huggingface(unpacked(file, folder))
        assert list(files) == ["vocab.txt", "dict.txt"]
        for name, content in files.items():
            (folder / name).write_bytes(content)
        ids.append(Tokenizer.from_dir(folder).encode("这段文字 a Bird 描述的是哪个区域？ 𠮷野"))
    assert ids[0] == ids[1] == Tokenizer.from_dir(chinese).encode("这段文字 a Bird 描述的是哪个区域？ 𠮷野")
    assert len(ids[0]) > 10
