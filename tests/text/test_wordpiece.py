from __future__ import annotations

import pickle
import random
import re
import sys
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ofa_core.errors import OFAError
from ofa_core.text import Tokenizer, small_vocabulary_dir
from ofa_core.text.tokenizer import FILES, VOCABULARY_KINDS
from ofa_core.text.wordpiece import WordPiece, bert_words

# A small vocabulary: id in vocab.txt = place. dict.txt has its own order, and lacks 猫, ##ing and [CLS].
LINES = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] 这 张 图 片 描 述 了 什 么 ？ ， 。 “ ” — … · 《 》 你 好 世 界 猫 〇 二 八 年 "
    "a cat play ##ing ##s un ##aff ##able ##ff it is ' s t don can n't . , ? ! ( ) [ ] # : 20 ##08 ##8 mask region < >"
)
TOKENS = LINES.split()
DICTIONARY = ["好", "你", *(token for token in TOKENS if token not in ("好", "你", "猫", "##ing", "[CLS]"))]


def write(directory: Path, tokens: list[str] = TOKENS, dictionary: list[str] = DICTIONARY) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_bytes("".join(f"{token}\n" for token in tokens).encode())
    (directory / "dict.txt").write_bytes("".join(f"{symbol} 1\n" for symbol in dictionary).encode())
    return directory


@pytest.fixture(scope="module")
def wordpiece() -> WordPiece:
    return WordPiece(TOKENS)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_dir(write(tmp_path_factory.mktemp("chinese")), code_dict_size=8, num_bins=10)


def pieces(wordpiece: WordPiece, text: str) -> list[str]:
    names = wordpiece.dictionary_symbols()
    return [names[token] for token in wordpiece.encode(text)]


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\r\n\u00a0\u3000\u2028 ", []),
        ("Hello, World", ["hello", ",", "world"]),
        ("这是cat吗？", ["这", "是", "cat", "吗", "？"]),
        ("日本のネコ 고양이", ["日", "本", "のネコ", unicodedata.normalize("NFD", "고양이")]),
        ("Éléphant Ångström naïve İ", ["elephant", "angstrom", "naive", "i"]),
        ("e\u0301te\u0301", ["ete"]),
        ("ΟΔΟΣ ς", ["οδοσ", "ς"]),  # no final sigma is made, and one that stands there stays
        ("a$b+c<d=e>f^g`h|i~j", [*"a$b+c<d=e>f^g`h|i~j"]),
        ("3€×4", ["3€×4"]),  # symbols beyond ASCII are no punctuation
        ("a\u037eb", ["a", ";", "b"]),  # a character that decomposes into punctuation
        ("a\x00b\ufffdc\u200bd\ue000e\ud800f\x85g", ["abcdefg"]),
        ("𠀀𪜀豈", ["𠀀", "𪜀", unicodedata.normalize("NFD", "豈")]),
        ("a🙂b", ["a🙂b"]),
        ("ＡＢ１", ["ａｂ１"]),
        ("##s", ["#", "#", "s"]),
        ("[MASK] <bin_3>", ["[", "mask", "]", "<", "bin", "_", "3", ">"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert bert_words(text) == words


# Pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这张图片描述了什么?", "这 张 图 片 描 述 了 什 么 ?"),
        ("Cats playing", "cat ##s play ##ing"),
        ("unaffable", "un ##aff ##able"),  # the longest piece comes first, not ##ff
        ("2008年", "20 ##08 年"),
        ("20088", "20 ##08 ##8"),
        ("〇〇", "[UNK]"),  # 〇 is no ideograph to BERT, and ##〇 is not there
        ("cat unaffx 你", "cat [UNK] 你"),  # a word is unknown as a whole
        ("是", "[UNK]"),
        ("[UNK] [CLS]", "[ [UNK] ] [ [UNK] ]"),
        ("##s", "# # s"),
        ("", ""),
    ],
)
def test_pieces(wordpiece: WordPiece, text: str, expected: str) -> None:
    assert pieces(wordpiece, text) == expected.split()


def test_ids_are_lines_of_the_file(tmp_path: Path) -> None:
    wordpiece = WordPiece.from_file(write(tmp_path) / "vocab.txt")
    assert wordpiece.encode("你好") == [TOKENS.index("你"), TOKENS.index("好")]
    assert wordpiece.dictionary_symbols() == dict(enumerate(TOKENS))
    assert len(wordpiece) == len(TOKENS)


def test_long_words() -> None:
    wordpiece = WordPiece(["[UNK]", "a", "##a"])
    assert wordpiece.encode("a" * 100) == [1] + [2] * 99
    assert wordpiece.encode("a" * 101) == [0]
    assert wordpiece.encode("a" * 101 + " a") == [0, 1]
    assert wordpiece.encode("a\u0301" * 100) == [1] + [2] * 99  # counted without accents


# Back to text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "这张图片描述了什么？",
        "你好，世界。",
        "“你好”——世界……",
        "《世界》·你好",
        "二〇〇八年",
        "cats play, cat is!",
        "你好 cats 世界",
        "it's a cat.",
        "“ a cat ” is — it",  # quotes and dashes by themselves do not tell which script they belong to
        "2008 年",
        "a，b",
    ],
)
def test_round_trip(text: str) -> None:
    wordpiece = WordPiece([*TOKENS, "##〇", "b"])
    assert wordpiece.decode(wordpiece.encode(text)) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("cat ##s", "cats"),
        ("##s cat", "##s cat"),  # nothing to be glued to
        ("你 ##ing 好", "你ing 好"),
        ("is n't it ? ! , .", "isn't it?!,."),
        ("don ' t", "don't"),
        ("a ( cat )", "a ( cat )"),  # only the marks of the list lose their space
        ("region : a", "region : a"),
        ("你 , 好 ！ cat", "你, 好！cat"),
        ("a ” — it", "a ”— it"),
        ("你 ！ ２ ２ cat", "你！２ ２ cat"),  # full-width letters and digits are words
        ("[MASK] [UNK]", "[MASK] [UNK]"),
    ],
)
def test_decode(names: str, text: str) -> None:
    tokens = [*TOKENS, "！", "２"]
    assert WordPiece(tokens).decode(map(tokens.index, names.split())) == text


@pytest.mark.parametrize("token", [-1, len(TOKENS)])
def test_decode_names_a_wrong_id(wordpiece: WordPiece, token: int) -> None:
    with pytest.raises(OFAError, match=f"WordPiece id {token} is not one of the {len(TOKENS)} tokens"):
        wordpiece.decode([5, token])


# Against an independent implementation


def stable_characters() -> list[str]:
    """All characters that have been what they are since Unicode 3.2, so that every implementation knows them."""
    category, old = unicodedata.category, unicodedata.ucd_3_2_0.category
    every = map(chr, range(sys.maxunicode + 1))
    return [character for character in every if category(character) == old(character) not in ("Cn", "Cs")]


def random_texts(seed: int, number: int) -> list[str]:
    """Texts of all scripts, with much of what is treated specially."""
    pick = random.Random(seed)
    everything = stable_characters()
    letters = [character for character in everything if character.isalpha() and not "\u3400" <= character <= "\ud7a3"]
    pools = [
        "abcde",
        "ABÉÈΣσİ",
        "中国图片",
        " \t\n\u3000\u00a0",
        ",.'#$^~[]？，“”—",
        "\u0301\u0327\u0f71\u200b",
        everything,
    ]
    pools += [letters, "のネコ고양이", "019²Ⅷ〇々"]
    return ["".join(pick.choice(pick.choice(pools)) for _ in range(pick.randrange(1, 30))) for _ in range(number)]


@pytest.fixture(scope="module")
def oracle_words() -> Callable[[str], list[str]]:
    tokenizers: Any = pytest.importorskip("tokenizers")
    normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    return lambda text: [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]


def test_every_character_as_the_oracle(oracle_words: Callable[[str], list[str]]) -> None:
    # Between letters, so that removed, separating and separated characters are told apart; many at once for speed.
    characters = stable_characters()
    for start in range(0, len(characters), 500):
        text = " ".join(f"a{character}b" for character in characters[start : start + 500])
        assert bert_words(text) == oracle_words(text)


def test_random_words_as_the_oracle(oracle_words: Callable[[str], list[str]]) -> None:
    for text in random_texts(1, 5000):
        assert bert_words(text) == oracle_words(text), repr(text)


def test_random_pieces_as_the_oracle() -> None:
    tokenizers: Any = pytest.importorskip("tokenizers")
    pick = random.Random(2)
    texts = random_texts(3, 5000)
    words = sorted({word for text in texts for word in bert_words(text)})
    found = {"[UNK]"}
    for word in words:  # cut some at random, leave others out: many are spelled in several ways, some not at all
        cuts = sorted({0, *(pick.randrange(len(word)) for _ in range(pick.randrange(4))), len(word)})
        parts = [word[start:end] for start, end in pairwise(cuts)]
        found |= {("##" if index else "") + part for index, part in enumerate(parts) if pick.random() < 0.9}
    tokens = sorted(found)
    ids = {token: index for index, token in enumerate(tokens)}
    oracle = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    oracle.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    oracle.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    wordpiece = WordPiece(tokens)
    unknown = continued = 0
    for text in texts:
        encoded = wordpiece.encode(text)
        assert encoded == oracle.encode(text).ids, repr(text)
        unknown += encoded.count(ids["[UNK]"])
        continued += sum(tokens[token].startswith("##") for token in encoded)
    assert min(unknown, continued) > 1000  # the comparison saw both


# Through the tokenizer


def test_dictionary_gives_the_ids(chinese: Tokenizer) -> None:
    vocabulary = chinese.vocabulary
    assert chinese.kind == "bert"
    assert chinese.encode("你好 cats") == [5, 4, *(4 + DICTIONARY.index(piece) for piece in ("cat", "##s"))]
    assert vocabulary.mask == 4 + len(DICTIONARY)
    assert len(chinese) == 4 + len(DICTIONARY) + 1 + 8 + 10
    assert chinese.decode(chinese.encode("这张图片描述了什么？", add_special_tokens=True)) == "这张图片描述了什么？"


def test_pieces_that_the_dictionary_lacks(chinese: Tokenizer) -> None:
    unk = chinese.vocabulary.unk
    play = 4 + DICTIONARY.index("play")
    assert chinese.encode("猫") == [unk]
    assert chinese.encode("playing") == [play, unk]
    assert chinese.decode([play, unk, 5, 4]) == "play <unk> 你好"
    assert chinese.encode("是") == [4 + DICTIONARY.index("[UNK]")]  # [UNK] is a line of this dict.txt
    assert Tokenizer(type(chinese.vocabulary)(("你",), 0, 0), WordPiece(TOKENS)).encode("是你") == [unk, 4]


def test_symbols(chinese: Tokenizer) -> None:
    vocabulary = chinese.vocabulary
    ids = chinese.encode("region: <bin_1> <bin_9> 你好<code_7><mask>", symbols=True)
    bins = vocabulary.bins_to_ids([1, 9])
    assert ids == [*chinese.encode("region:"), *bins, 5, 4, vocabulary.code_start + 7, vocabulary.mask]
    assert chinese.decode(ids) == "region : <bin_1> <bin_9> 你好 <code_7> <mask>"
    assert chinese.bins([0, *bins, 2, 1]) == [1, 9]


@pytest.mark.parametrize("text", ["<bin_1>", "<mask>", "<s> </s> <pad> <unk>", "[MASK]"])
def test_symbols_are_plain_text_by_default(chinese: Tokenizer, text: str) -> None:
    plain = 4 + DICTIONARY.index("[MASK]")
    assert not {0, 1, 2, plain} & set(chinese.encode(text))
    assert max(chinese.encode(text)) < chinese.vocabulary.mask


def test_extra_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_dir(write(tmp_path), code_dict_size=0, num_bins=2, extra_tokens=("是的",))
    assert tokenizer.encode("你 是的", symbols=True) == [5, tokenizer.vocabulary.bin_end]


def test_save_copies_the_files(tmp_path: Path) -> None:
    source = write(tmp_path / "source")
    crlf = (source / "vocab.txt").read_bytes().replace(b"\n", b"\r\n")
    (source / "vocab.txt").write_bytes(crlf)
    (source / "config.json").write_text("{}")
    tokenizer = Tokenizer.from_dir(source)
    tokenizer.save(tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == {
        name: (source / name).read_bytes() for name in ("vocab.txt", "dict.txt")
    }
    again = Tokenizer.from_dir(tmp_path / "copy")
    assert again.vocabulary == tokenizer.vocabulary
    assert again.encode("你好 cats") == tokenizer.encode("你好 cats")
    assert again.encode("你好") == [5, 4]


def test_pickles(chinese: Tokenizer) -> None:
    assert pickle.loads(pickle.dumps(chinese)).encode("你好 cats") == chinese.encode("你好 cats")


# Files


def test_kinds(small: Tokenizer) -> None:
    assert small.kind == "gpt2"
    assert VOCABULARY_KINDS["gpt2"] == FILES
    assert VOCABULARY_KINDS["bert"] == ("vocab.txt", "dict.txt")


def test_dict_is_missing(tmp_path: Path) -> None:
    (write(tmp_path) / "dict.txt").unlink()
    expected = f"dict.txt is missing from {tmp_path}, which should hold vocab.txt, dict.txt"
    with pytest.raises(OFAError, match=f"^{re.escape(expected)}$"):
        Tokenizer.from_dir(tmp_path)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match=r"should hold encoder.json, vocab.bpe, dict.txt, or vocab.txt, dict.txt$"):
        Tokenizer.from_dir(tmp_path)


def test_files_of_both_kinds(tmp_path: Path) -> None:
    write(tmp_path)
    for path in small_vocabulary_dir().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(OFAError, match=r"holds encoder.json and vocab.txt, which belong to different vocabularies"):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt: expected one token a line, found an empty file"),
        (b"a\nb\n", "vocab.txt: none of the 2 WordPiece tokens is [UNK], which stands for unknown words"),
        (b"[UNK]\na\r\nb\na\n", "vocab.txt:4: token 'a' stands on line 2 already"),
        (b"[UNK]\n\na\n", "vocab.txt:2: expected a token, found an empty line"),
        (b"[UNK]\n\xe4\xbd\n", "vocab.txt: not UTF-8 at byte 6"),
    ],
)
def test_broken_vocab(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(OFAError) as caught:
        Tokenizer.from_dir(tmp_path)
    assert str(caught.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("tokens", [["[UNK]", "a", "a"], ["[UNK]", ""]])
def test_broken_tokens(tokens: list[str]) -> None:
    with pytest.raises(OFAError, match="must be distinct and not empty"):
        WordPiece(tokens)


def test_a_last_line_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("[UNK]\n你".encode())
    assert WordPiece.from_file(tmp_path / "vocab.txt").encode("你") == [1]
