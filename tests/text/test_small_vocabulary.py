from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ofa_core.text import Tokenizer, small_vocabulary_dir

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_small_vocabulary.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_small_vocabulary", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    directory: Path = tmp_path_factory.mktemp("vocabulary")
    script.main(["--out", str(directory)])
    return directory


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", "dict.txt"])
def test_the_script_reproduces_the_packaged_files(written: Path, name: str) -> None:
    assert (written / name).read_bytes() == (small_vocabulary_dir() / name).read_bytes()


def test_nothing_else_is_packaged(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {path.name for path in small_vocabulary_dir().iterdir()}
    assert sum(path.stat().st_size for path in small_vocabulary_dir().iterdir()) < 50_000


def test_dictionary(small: Tokenizer) -> None:
    lines = (small_vocabulary_dir() / "dict.txt").read_text("utf-8").splitlines()
    symbols, counts = zip(*(line.split() for line in lines), strict=True)
    assert list(map(int, counts)) == sorted(map(int, counts), reverse=True)
    assert symbols[-3:] == ("madeupword0000", "madeupword0001", "madeupword0002")
    assert sorted(map(int, symbols[:-3])) == list(range(957))
    assert small.decode([small.vocabulary.id_of("956")]) == "<|endoftext|>"
    assert small.vocabulary.mask == 4 + len(lines)


@pytest.mark.parametrize(
    "text",
    [
        " the small red circle left of the blue star",
        " what does the image describe?",
        " which region does the text describe?",
        " not yet. is it the biggest one?",
    ],
)
def test_words_of_the_tasks_are_single_tokens(small: Tokenizer, text: str) -> None:
    words = text.replace("?", " ?").replace(".", " .").split()
    assert len(small.encode(text)) == len(words)


@pytest.mark.parametrize("text", ["Zürich 你好 🙂\x00\n", " qwertyuiop", "\ufffd"])
def test_any_text_survives(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert small.vocabulary.unk not in ids
    assert small.decode(ids) == text
