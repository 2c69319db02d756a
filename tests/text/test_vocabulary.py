from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ofa_core.errors import OFAError
from ofa_core.text import Vocabulary

SYMBOLS = ("13", "262", "madeupword0000")


def test_layout_of_the_official_bpe(official_bpe: Path) -> None:
    vocabulary = Vocabulary.from_dict_file(official_bpe / "dict.txt")
    assert len(vocabulary) == 59457
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)
    assert vocabulary.mask == 50264
    assert (vocabulary.code_start, vocabulary.code_end) == (50265, 58457)
    assert (vocabulary.bin_start, vocabulary.bin_end) == (58457, 59457)
    assert vocabulary.symbol_of(4) == "13"
    assert vocabulary.symbol_of(50263) == "madeupword0002"


@pytest.mark.parametrize(("codes", "bins"), [(0, 1000), (8192, 1000), (3, 5), (0, 0), (7, 0)])
def test_layout_of_any_size(codes: int, bins: int) -> None:
    extra = ("<ans_0>", "yes")
    vocabulary = Vocabulary(SYMBOLS, codes, bins, extra)
    assert len(vocabulary) == 4 + 3 + 1 + codes + bins + 2
    assert vocabulary.mask == vocabulary.id_of("<mask>") == 7
    assert vocabulary.code_end - vocabulary.code_start == codes
    assert vocabulary.bin_end - vocabulary.bin_start == bins
    for token in range(len(vocabulary)):
        assert vocabulary.id_of(vocabulary.symbol_of(token)) == token
    assert [vocabulary.symbol_of(vocabulary.bin_start + i) for i in range(bins)] == [f"<bin_{i}>" for i in range(bins)]
    assert vocabulary.id_of("yes") == len(vocabulary) - 1
    assert vocabulary.id_of(f"<bin_{bins}>") == vocabulary.id_of(f"<code_{codes}>") == vocabulary.unk


def test_bins() -> None:
    vocabulary = Vocabulary(SYMBOLS, 2, 5)
    ids = vocabulary.bins_to_ids([0, 4, 2])
    assert ids == [vocabulary.id_of(s) for s in ("<bin_0>", "<bin_4>", "<bin_2>")]
    assert [vocabulary.bin_of(token) for token in ids] == [0, 4, 2]
    assert vocabulary.bin_of(vocabulary.bin_start - 1) is None
    assert vocabulary.bin_of(vocabulary.bin_end) is None
    for wrong in (5, -1):
        with pytest.raises(OFAError, match=rf"bin {wrong} is outside 0\.\.4"):
            vocabulary.bins_to_ids([0, wrong])
    with pytest.raises(OFAError, match="whole number"):
        vocabulary.bins_to_ids([1.0])  # type: ignore[list-item]


@pytest.mark.parametrize("token", [-1, 13])
def test_symbol_out_of_range(token: int) -> None:
    vocabulary = Vocabulary(SYMBOLS, 0, 5)
    with pytest.raises(ValueError, match=rf"token id {token} is outside the vocabulary, whose ids are 0\.\.12"):
        vocabulary.symbol_of(token)


def test_unknown_symbol_and_membership() -> None:
    vocabulary = Vocabulary(SYMBOLS, 0, 5)
    assert vocabulary.id_of("nope") == vocabulary.unk
    assert "nope" not in vocabulary
    assert "<unk>" in vocabulary


def test_frozen_and_comparable() -> None:
    vocabulary = Vocabulary(list(SYMBOLS), 0, 5)
    assert vocabulary == Vocabulary(SYMBOLS, 0, 5)
    assert hash(vocabulary) == hash(Vocabulary(SYMBOLS, 0, 5))
    assert vocabulary != Vocabulary(SYMBOLS, 0, 6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.num_bins = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("symbols", "codes", "bins", "extra", "message"),
    [
        (("a", "b", "a"), 0, 0, (), "'a' would have two ids, 4 and 6"),
        (("<pad>",), 0, 0, (), "'<pad>' would have two ids"),
        (("<bin_1>",), 0, 2, (), "'<bin_1>' would have two ids"),
        (("a",), 0, 2, ("<bin_0>",), "'<bin_0>' would have two ids"),
        (("a",), -1, 2, (), "code_dict_size must not be negative, it is -1"),
        (("a",), 0, -2, (), "num_bins must not be negative, it is -2"),
        (("a",), 0, 0, ("two words",), "extra token 'two words' is empty or holds white space"),
        (("a",), 0, 0, ("",), "extra token '' is empty"),
    ],
)
def test_constructor_errors(
    symbols: tuple[str, ...], codes: int, bins: int, extra: tuple[str, ...], message: str
) -> None:
    with pytest.raises(OFAError, match=message):
        Vocabulary(symbols, codes, bins, extra)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("13 5\n262 4\n13 3\n", r"dict\.txt:3: symbol '13' stands on line 1 already"),
        ("13 5\n262\n", r"dict\.txt:2: expected a symbol, a space and a count, found '262'"),
        ("13 5\n\n262 1\n", r"dict\.txt:2: expected a symbol"),
        ("13 many\n", r"dict\.txt:1: expected a symbol"),
        ("13 5\n<mask> 2\n", r"dict\.txt: symbol '<mask>' would have two ids"),
        (None, r"dict\.txt: cannot be read"),
    ],
)
def test_file_errors_name_file_and_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "dict.txt"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(OFAError, match=message) as caught:
        Vocabulary.from_dict_file(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_bytes(b"13 5\r\n262 4\r\n")
    assert Vocabulary.from_dict_file(tmp_path / "dict.txt", num_bins=2).symbols == ("13", "262")
