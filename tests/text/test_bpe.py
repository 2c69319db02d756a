from __future__ import annotations

import json
import random
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ofa_core.errors import OFAError
from ofa_core.text.bpe import ByteLevelBPE, byte_symbols, split_words

BYTES = {byte_symbols(bytes([byte])): byte for byte in range(256)}
WHITE_SPACE = [chr(c) for c in (*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200C))]
WHITE_SPACE += ["\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff"]
COMMON = list(" " * 12 + "\n\t'abcdefghijklmnopqrstuvwxyzABCSTMDLLREVE0123456789.,!?<>_-#\"\u2019")
PIECES = [
    "'s",
    "'t",
    "'re",
    "'ve",
    "'m",
    "'ll",
    "'d",
    "'S",
    "'RE",
    "''s",
    " '",
    "  ",
    " \n",
    "🙂",
    "👩‍👩‍👧",
    "<bin_3>",
    "\u0301",
]

# GPT-2's word pattern, as tiktoken's engine takes it.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="module")
def bpe(vocabulary_dir: Path) -> ByteLevelBPE:
    return ByteLevelBPE.from_files(vocabulary_dir / "encoder.json", vocabulary_dir / "vocab.bpe")


@pytest.fixture(scope="module")
def oracle(vocabulary_dir: Path) -> Any:
    """An independent implementation over the same files."""
    tiktoken = pytest.importorskip("tiktoken")
    token_ids = json.loads((vocabulary_dir / "encoder.json").read_text("utf-8"))
    end = token_ids.pop("<|endoftext|>")
    ranks = {bytes(BYTES[symbol] for symbol in token): index for token, index in token_ids.items()}
    return tiktoken.Encoding(
        "gpt2-files", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end}
    )


@pytest.fixture(scope="module")
def assigned() -> list[str]:
    """Characters of all scripts that both Unicode tables know; they may be of different age."""
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)}
    unassigned = tiktoken.Encoding("unassigned", pat_str=r"\p{Cn}", mergeable_ranks=ranks, special_tokens={})
    everything = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    ours = [c for c in everything if unicodedata.category(c) not in ("Cn", "Co")]
    pool = random.Random(5).sample(ours, 20000)
    return [c for c in pool if not unassigned.encode_ordinary(c)]


def random_text(random_: random.Random, assigned: list[str]) -> str:
    pools = (COMMON, assigned, WHITE_SPACE, PIECES)
    weights = random_.choice([(8, 1, 1, 1), (1, 8, 1, 1), (2, 1, 6, 1), (3, 3, 3, 3), (1, 0, 0, 8)])
    pools_of_text = random_.choices(pools, weights, k=random_.randrange(1, 40))
    return "".join(random_.choice(pool) for pool in pools_of_text)


def test_equals_the_oracle_on_random_text_of_all_scripts(bpe: ByteLevelBPE, oracle: Any, assigned: list[str]) -> None:
    random_ = random.Random(7)
    assert len(assigned) > 15000
    for _ in range(5000):
        text = random_text(random_, assigned)
        ids = bpe.encode(text)
        assert ids == oracle.encode_ordinary(text), ascii(text)
        assert bpe.decode(ids) == text


def test_equals_the_oracle_on_every_pair_around_white_space(bpe: ByteLevelBPE, oracle: Any) -> None:
    for one in WHITE_SPACE:
        for two in [*WHITE_SPACE, ""]:
            for text in (f"a{one}{two}b", f"{one}{two}1", f"{one}{two}", f"?{one}{two}!", f"'{one}{two}'s"):
                assert bpe.encode(text) == oracle.encode_ordinary(text), ascii(text)


def test_every_category_is_split_like_the_oracle(assigned: list[str], bpe: ByteLevelBPE, oracle: Any) -> None:
    for character in assigned[:6000]:
        text = f"a{character}1 {character}!"
        assert bpe.encode(text) == oracle.encode_ordinary(text), ascii(text)


@pytest.mark.reference
def test_golden_ids(official: Any, golden: Any) -> None:
    for case in golden("tokenizer"):
        assert official.bpe.encode(case["text"]) == case["gpt2"]
        assert official.bpe.decode(case["gpt2"]) == case["text"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("I'll we've DON'T", ["I", "'ll", " we", "'ve", " DON", "'", "T"]),
        ("a  b\n\n c", ["a", " ", " b", "\n\n", " c"]),
        ("a \n b1_2 ", ["a", " \n", " b", "1", "_", "2", " "]),
        ("x\u3000y\x1cz", ["x", "\u3000", "y", "\x1c", "z"]),
        ("x\u3000\x85y \x1fz", ["x", "\u3000", "\x85", "y", " \x1f", "z"]),
        (" ½²Ⅷ٣é你", [" ½²Ⅷ٣", "é你"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert list(split_words(text)) == words


def test_lone_surrogates_become_replacement_characters(bpe: ByteLevelBPE) -> None:
    assert bpe.decode(bpe.encode("a\ud800b")) == "a\ufffdb"
    assert bpe.encode("\ud83d\ude42") == bpe.encode("🙂")


def test_invalid_bytes_decode_to_replacement_characters(bpe: ByteLevelBPE) -> None:
    half = bpe.encode("\x00")[:1]
    continuation = next(i for i in range(256) if bpe._token_bytes[i] == b"\x80")
    assert bpe.decode([*half, continuation, *half]) == "\x00\ufffd\x00"


def test_end_of_text_is_plain_characters(bpe: ByteLevelBPE) -> None:
    ids = bpe.encode("<|endoftext|>")
    assert len(ids) > 1
    assert bpe.decode(ids) == bpe.decode([len(bpe) - 1]) == "<|endoftext|>"


@pytest.mark.parametrize("unit", ["a", "the", "qzx", "é", "!?", " \n", "'", "1"])
def test_very_long_words_take_linear_time(bpe: ByteLevelBPE, unit: str) -> None:
    text = unit * (100_000 // len(unit))
    start = time.perf_counter()
    ids = bpe.encode(text)
    assert time.perf_counter() - start < 5  # a quadratic merge takes minutes
    assert bpe.decode(ids) == text


def test_long_random_word_equals_the_oracle(bpe: ByteLevelBPE, oracle: Any) -> None:
    random_ = random.Random(3)
    word = "".join(random_.choices("etaoinshrdlu", k=3000))
    assert bpe.encode(word) == oracle.encode_ordinary(word)


def test_the_cache_is_bounded(bpe: ByteLevelBPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_core.text.bpe._CACHE_WORDS", 10)
    fresh = ByteLevelBPE(BYTES, [])
    for number in range(100):
        assert fresh.encode(f"w{number}") == list(f"w{number}".encode())
        assert len(fresh._cache) <= 10
    fresh.encode("x" * 65)
    assert all(len(word) <= 64 for word in fresh._cache)


def test_ids_returned_are_not_the_cache(bpe: ByteLevelBPE) -> None:
    ids = bpe.encode("word")
    expected = list(ids)
    ids.append(0)
    assert bpe.encode("word") == expected


def test_lowest_rank_merges_first_and_leftmost() -> None:
    merges = [("a", "a"), ("b", "c"), ("a", "b"), ("aa", "bc")]
    token_ids = {**BYTES, **{left + right: 256 + i for i, (left, right) in enumerate(merges)}}
    bpe = ByteLevelBPE(token_ids, merges)
    assert bpe.encode("aaa") == [256, ord("a")]
    assert bpe.encode("abc") == [ord("a"), 257]
    assert bpe.encode("aabc") == [259]
    assert bpe.encode("ab") == [258]


@pytest.mark.parametrize(
    ("tokens", "merges", "message"),
    [
        ({"a": 0}, [], "lack 255 of the 256 byte symbols"),
        ({**BYTES, "ab": 256}, [("a", "c")], r"merge 1 \('a' \+ 'c'\) needs 'ac'"),
        ({**BYTES, "ab": 97}, [], "'ab' has the id 97"),
        ({**BYTES, "ab": -1}, [], "'ab' has the id -1"),
        ({**BYTES, "a b": 256}, [], "holds ' ', which stands for no byte"),
    ],
)
def test_constructor_errors(tokens: dict[str, int], merges: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ByteLevelBPE(tokens, merges)


def test_unknown_id(bpe: ByteLevelBPE) -> None:
    with pytest.raises(OFAError, match=f"BPE id 99999 is not one of the {len(bpe)} tokens"):
        bpe.decode([99999])


@pytest.mark.parametrize(
    ("encoder", "merges", "message"),
    [
        ("{", "", r"encoder\.json:1: not JSON"),
        ("[1]", "", r"encoder\.json: expected one JSON object"),
        ('{"a": "x"}', "", r"encoder\.json: expected one JSON object"),
        (None, "", r"encoder\.json: cannot be read"),
        (json.dumps(BYTES), None, r"vocab\.bpe: cannot be read"),
        (json.dumps(BYTES), "#version: 0.2\na b c\n", r"vocab\.bpe:2: expected two symbols"),
        (json.dumps(BYTES), "#version: 0.2\n\na b\n", r"vocab\.bpe:2: expected two symbols"),
        (json.dumps(BYTES), "a b\n", r"encoder\.json and vocab\.bpe: BPE merge 1 .* needs 'ab'"),
    ],
)
def test_file_errors_name_the_file(tmp_path: Path, encoder: str | None, merges: str | None, message: str) -> None:
    for name, content in (("encoder.json", encoder), ("vocab.bpe", merges)):
        if content is not None:
            (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(OFAError, match=message) as caught:
        ByteLevelBPE.from_files(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    assert "\n" not in str(caught.value)


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(OFAError, match="not UTF-8 at byte 2"):
        ByteLevelBPE.from_files(tmp_path / "encoder.json", tmp_path / "vocab.bpe")


def test_version_line_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text(json.dumps({**BYTES, "ab": 256}), "utf-8")
    for content in (b"#version: 0.2\na b\n", b"a b", b"#version: 0.2\r\na b\r\n"):
        (tmp_path / "vocab.bpe").write_bytes(content)
        bpe = ByteLevelBPE.from_files(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
        assert bpe.encode("ab") == [256]
