from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_core.errors import OFAError
from ofa_core.text import Tokenizer, Vocabulary, small_vocabulary_dir


def load(**sizes: Any) -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), **sizes)


def bin_ids(tokenizer: Tokenizer, *bins: int) -> list[int]:
    return tokenizer.vocabulary.bins_to_ids(bins)


# Against the original implementation


@pytest.mark.reference
def test_golden_text(official: Tokenizer, golden: Any) -> None:
    cases = golden("tokenizer")
    assert len(official) == 59457
    for case in cases:
        assert official.encode(case["text"]) == case["ids"]
        assert official.decode(case["ids"]) == (case["decoded"] or "")


@pytest.mark.reference
def test_golden_symbols(official: Tokenizer, golden: Any) -> None:
    for case in golden("symbols"):
        assert official.encode_symbols(case["text"]) == case["ids"]


def test_symbols_next_to_official_text(official: Tokenizer) -> None:
    text = ' \n#context: "human: is it a dog?"\n#region: <bin_1> <bin_2> <bin_3> <bin_4>'
    before, _ = text.split(" <bin_1>")
    assert official.encode(text, symbols=True) == [*official.encode(before), 58458, 58459, 58460, 58461]


# Symbols in text


def test_symbols_are_plain_text_by_default(small: Tokenizer) -> None:
    text = "a <bin_3> <code_1> <mask> <s> </s> <pad> <unk> b"
    ids = small.encode(text)
    assert max(ids) < small.vocabulary.mask
    assert min(ids) > small.vocabulary.unk
    assert small.decode(ids) == text


@pytest.mark.parametrize("gap", ["", " ", "  ", "\n", " \t\n"])
def test_white_space_around_symbols_disappears(small: Tokenizer, gap: str) -> None:
    text = f" region:{gap}<bin_1>{gap}<bin_2>{gap}#context"
    expected = [*small.encode(" region:"), *bin_ids(small, 1, 2), *small.encode("#context")]
    assert small.encode(text, symbols=True) == expected


def test_white_space_elsewhere_stays(small: Tokenizer) -> None:
    assert small.encode("  a b ", symbols=True) == small.encode("  a b ")
    bin_1 = bin_ids(small, 1)
    assert small.encode("  a  b <bin_1> c  ", symbols=True) == [*small.encode("  a  b"), *bin_1, *small.encode("c  ")]


def test_keep_spaces(small: Tokenizer) -> None:
    expected = [*small.encode(" a "), *bin_ids(small, 1), *small.encode(" "), *bin_ids(small, 2), *small.encode("\nb")]
    assert small.encode(" a <bin_1> <bin_2>\nb", symbols=True, keep_spaces=True) == expected


def test_symbol_kinds(small: Tokenizer) -> None:
    vocabulary = small.vocabulary
    expected = [vocabulary.mask, vocabulary.code_start + 7, *bin_ids(small, 999)]
    assert small.encode("<mask><code_7><bin_999>", symbols=True) == expected


@pytest.mark.parametrize(
    "text", ["<bin_1000>", "<bin_01>", "<bin_-1>", "<code_8>", "< bin_1 >", "<s>", "<pad> </s>", "<unk>", "<<>>", "13"]
)
def test_what_is_no_symbol_stays_text(small: Tokenizer, text: str) -> None:
    assert small.encode(f"a {text} b", symbols=True) == small.encode(f"a {text} b")


def test_symbol_after_an_open_bracket(small: Tokenizer) -> None:
    assert small.encode("<<bin_1>>", symbols=True) == [*small.encode("<"), *bin_ids(small, 1), *small.encode(">")]


def test_without_codes() -> None:
    tokenizer = load(code_dict_size=0, num_bins=4)
    assert tokenizer.vocabulary.bin_start == tokenizer.vocabulary.mask + 1
    assert len(tokenizer) == tokenizer.vocabulary.bin_end
    assert tokenizer.encode("<code_0> <bin_4>", symbols=True) == tokenizer.encode("<code_0> <bin_4>")
    assert tokenizer.decode(tokenizer.encode("<bin_3>", symbols=True)) == "<bin_3>"


def test_extra_tokens() -> None:
    tokenizer = load(num_bins=2, code_dict_size=0, extra_tokens=("yes", "yes/no", "<ans_0>", "n/a", "c++"))
    first = tokenizer.vocabulary.bin_end
    assert tokenizer.encode(" a yes <ans_0> yes/no", symbols=True) == [
        *tokenizer.encode(" a"),
        first,
        first + 2,
        first + 1,
    ]
    assert tokenizer.encode("yesterday eyes", symbols=True) == tokenizer.encode("yesterday eyes")
    assert tokenizer.encode("n/a c++", symbols=True) == [first + 3, first + 4]
    assert tokenizer.encode("yes <ans_0>") == tokenizer.encode("yes") + tokenizer.encode(" <ans_0>")
    assert tokenizer.decode([first, first + 2]) == "yes <ans_0>"
    assert len(tokenizer) == first + 5


def test_encode_symbols(small: Tokenizer) -> None:
    unk = small.vocabulary.unk
    assert small.encode_symbols(" <bin_0>  <bin_3>\n<s> word <bin_1000>") == [*bin_ids(small, 0, 3), 0, unk, unk]
    assert small.encode_symbols("") == []


# Control tokens, cutting, padding


def test_special_tokens_and_cutting(small: Tokenizer) -> None:
    ids = small.encode(" is it a dog?")
    assert small.encode(" is it a dog?", add_special_tokens=True) == [0, *ids, 2]
    assert small.encode(" is it a dog?", max_tokens=3) == ids[:3]
    assert small.encode(" is it a dog?", max_tokens=3, truncate_left=True) == ids[-3:]
    assert small.encode(" is it a dog?", max_tokens=2, truncate_left=True, add_special_tokens=True) == [0, *ids[-2:], 2]
    for left in (False, True):
        assert small.encode(" is it a dog?", max_tokens=0, truncate_left=left) == []
        assert small.encode(" is it a dog?", max_tokens=99, truncate_left=left) == ids
    assert small.encode("", add_special_tokens=True) == [0, 2]
    with pytest.raises(OFAError, match="max_tokens must not be negative, it is -1"):
        small.encode("a", max_tokens=-1)


def test_pad(small: Tokenizer) -> None:
    batch = small.pad([[0, 5, 2], [], (7,)])
    assert batch.dtype == torch.int64
    assert batch.tolist() == [[0, 5, 2], [1, 1, 1], [7, 1, 1]]
    assert small.pad([[]]).shape == (1, 0)
    with pytest.raises(OFAError, match="nothing to pad"):
        small.pad([])


# Back to text


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_decode_takes_lists_tuples_and_tensors(small: Tokenizer, kind: Any) -> None:
    ids = small.encode(" region: <bin_1> <bin_20>", symbols=True, add_special_tokens=True)
    assert small.decode(kind([*ids, 1, 1])) == " region: <bin_1> <bin_20>"
    assert small.bins(kind([0, *bin_ids(small, 3, 4), 2, 1])) == [3, 4]


def test_decode_shows_symbols_apart(small: Tokenizer) -> None:
    vocabulary = small.vocabulary
    bins = bin_ids(small, 1, 2)
    assert small.decode(bins) == "<bin_1> <bin_2>"
    assert small.decode([*bins, *small.encode("then")]) == "<bin_1> <bin_2> then"
    assert small.decode([*bins, *small.encode(" then")]) == "<bin_1> <bin_2> then"
    assert small.decode([*small.encode("a\n"), *bins, *small.encode("\nb")]) == "a\n<bin_1> <bin_2>\nb"
    assert small.decode([*small.encode("a"), vocabulary.unk, *small.encode("b")]) == "a <unk> b"
    assert small.decode([vocabulary.mask, vocabulary.code_start]) == "<mask> <code_0>"
    assert small.decode([vocabulary.id_of("madeupword0001")]) == "madeupword0001"


def test_decode_with_control_tokens(small: Tokenizer) -> None:
    ids = small.encode(" a <bin_1>", symbols=True, add_special_tokens=True)
    assert small.decode([*ids, 1], skip_special_tokens=False) == "<s> a <bin_1> </s> <pad>"
    assert small.decode([0, 2, 1]) == ""
    assert small.decode([]) == ""


def test_dropped_tokens_do_not_cut_a_character(small: Tokenizer) -> None:
    ids = small.encode("é")
    assert len(ids) == 2
    assert small.decode([ids[0], 1, ids[1]]) == "é"


def test_decode_errors(small: Tokenizer) -> None:
    with pytest.raises(OFAError, match=f"token id {len(small)} is outside the vocabulary"):
        small.decode([len(small)])
    with pytest.raises(OFAError, match="1-D integer tensor"):
        small.decode(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(OFAError, match="1-D integer tensor"):
        small.bins(torch.zeros(2))


def test_bins_are_never_invented(small: Tokenizer) -> None:
    bins = bin_ids(small, 0, 999)
    assert small.bins(bins) == [0, 999]
    assert small.bins([0, 2, 1]) is None
    assert small.bins([]) is None
    assert small.bins([*small.encode("<bin_1>"), *bins]) is None
    assert small.bins([*bins, small.vocabulary.unk]) is None


def test_round_trip_of_text_and_symbols(vocabulary_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(vocabulary_dir)
    random_ = random.Random(1)
    words = ["a", "région", "你好", "?", "🙂", "it's", "12"]
    for _ in range(500):
        parts = [random_.choice([*words, f"<bin_{random_.randrange(1000)}>"]) for _ in range(random_.randrange(1, 9))]
        text = " ".join(parts)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer.encode(text, symbols=True)) == text


# Files


def test_save_copies_the_files(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path / "new" / "directory")
    for source in small_vocabulary_dir().iterdir():
        assert (tmp_path / "new" / "directory" / source.name).read_bytes() == source.read_bytes()
    again = Tokenizer.from_dir(tmp_path / "new" / "directory", code_dict_size=8)
    assert again.vocabulary == small.vocabulary
    assert again.encode(" a red ring") == small.encode(" a red ring")


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", "dict.txt"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "vocabulary"
    shutil.copytree(small_vocabulary_dir(), directory)
    (directory / name).unlink()
    with pytest.raises(OFAError, match=f"{name} is missing from .*vocabulary, which should hold") as caught:
        Tokenizer.from_dir(str(directory))
    assert "\n" not in str(caught.value)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="nowhere: no such directory"):
        Tokenizer.from_dir(tmp_path / "nowhere")


def test_bpe_token_that_the_dictionary_lacks(tmp_path: Path, small: Tokenizer) -> None:
    shutil.copytree(small_vocabulary_dir(), tmp_path, dirs_exist_ok=True)
    dog = small.bpe.encode(" dog")[0]
    lines = (tmp_path / "dict.txt").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split()[0] != str(dog)] + ["123456 0\n"]
    (tmp_path / "dict.txt").write_text("".join(kept), "utf-8")
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.encode(" dog") == [tokenizer.vocabulary.unk]
    assert tokenizer.decode([tokenizer.vocabulary.id_of("123456")]) == "123456"


def test_pickles(small: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(small))
    assert again.encode(" a <bin_1>", symbols=True) == small.encode(" a <bin_1>", symbols=True)


class Letters:
    """Another text encoder: one token a letter, named by itself in the dictionary."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(map(chr, ids))

    def dictionary_symbols(self) -> dict[int, str]:
        return {code: chr(code) for code in range(ord("a"), ord("z") + 1)}


def test_another_text_encoder_fits(tmp_path: Path) -> None:
    tokenizer = Tokenizer(Vocabulary(("c", "b", "a"), 0, 2), Letters())
    assert tokenizer.encode("abcd <bin_1>", symbols=True) == [6, 5, 4, 3, 9]
    assert tokenizer.decode([6, 5, 4, 3, 9]) == "abc <unk> <bin_1>"
    with pytest.raises(OFAError, match="none to save"):
        tokenizer.save(tmp_path)
