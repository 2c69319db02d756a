"""Train the project's own small vocabulary, on sentences written down here, and store it in the package.

    python scripts/make_small_vocabulary.py [--out DIRECTORY]

The three files have the official format, so tests, demos and small models need no third-party data. Nothing here is
random: the same Python code gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

from ofa_core.text import ByteLevelBPE, small_vocabulary_dir
from ofa_core.text.bpe import byte_symbols, split_words

MERGES = 700
UNUSED = [f"madeupword{index:04d}" for index in range(3)]

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "big", "large", "tiny")
SIDES = ("left", "right", "top", "bottom", "middle", "upper left", "upper right", "lower left", "lower right")
EXTREMES = ("leftmost", "rightmost", "topmost", "bottommost", "biggest", "smallest", "largest", "lowest", "highest")
RELATIONS = (
    "above", "below", "left of", "right of", "to the left of", "to the right of", "next to", "between", "behind",
    "in front of", "under", "over", "near", "inside", "on top of", "far from",
)  # fmt: skip
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "many", "several")
PEOPLE = ("man", "woman", "person", "boy", "girl", "child", "player", "lady", "guy", "people")
ANIMALS = ("dog", "cat", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "bird")
THINGS = (
    "car", "bus", "truck", "train", "boat", "airplane", "bicycle", "motorcycle", "bench", "umbrella", "backpack",
    "handbag", "suitcase", "ball", "kite", "skateboard", "surfboard", "bottle", "cup", "glass", "fork", "knife",
    "spoon", "bowl", "banana", "apple", "sandwich", "pizza", "cake", "donut", "chair", "couch", "table", "plant",
    "bed", "laptop", "phone", "keyboard", "book", "clock", "vase", "sign", "traffic light", "fire hydrant", "tv",
)  # fmt: skip
CLOTHES = ("shirt", "hat", "jacket", "dress", "pants", "shoes", "glasses", "helmet", "blouse", "tie")
DEEDS = ("standing", "sitting", "walking", "running", "playing", "riding", "holding", "wearing", "looking", "eating")
PLACES = ("in the street", "on the beach", "in a room", "on the grass", "in the water", "at the table", "in the snow")

PLURALS = {
    "man": "men", "woman": "women", "person": "people", "people": "people", "child": "children", "lady": "ladies",
    "sheep": "sheep", "knife": "knives",
}  # fmt: skip

PROMPTS = (
    " what does the image describe?",
    " what does the region describe?",
    " what is the complete image? caption:",
    ' what is the summary of article " the picture shows two people. "?',
    ' can image and text1 " a picture of a man " imply text2 " there is a person "?',
    " region: not yet. sure. region:",
    " yes no n/a maybe",
    " yes",
    " no",
    " n/a",
)
SENTENCES = (
    " a group of young people are sitting around a wooden table, talking and drinking wine.",
    " a man in a blue shirt is about to throw a baseball while others watch.",
    " an old brown building with a tall tower stands behind the trees under a cloudy sky.",
    " two women and their children are having dinner in the kitchen of a small house.",
    " a skier goes down the hill; the mountains behind him are covered with snow.",
    " the boy on a skateboard jumps high into the air over some stairs.",
    " a plate of food with vegetables, rice, meat and bread, next to a glass of orange juice.",
    " a living room with a large window, a lamp, a television and pictures on the wall.",
    " the bathroom has a white sink, a toilet, a mirror and a shower.",
    " a tennis player swings his racket at the ball on a green court.",
    " cars and buses drive along a busy city road at night.",
    " a herd of animals grazing in a field near the river.",
    " a little girl with long hair smiles at the camera and holds her toy.",
    " someone rides a wave in the ocean. it looks cold, but the sun shines.",
    " this picture shows only part of the object, because something else hides it.",
    " which one do you want? i mean the second one from the left, not the first or the last.",
    " he is between them, closer to us than that other person, and his hand is up.",
    " they are both dark, but mine is lighter and its shape is round.",
    " what is the person doing? where was this photo taken? who has the most? why would you say so?",
    " does anything here look new, clean, open, empty, full, short, wide, thin, thick, bright or broken?",
    " i am looking for gray, pink, brown, silver and golden things made of metal, wood, plastic, paper or stone.",
    " please tell me more about it, then i will find it for you. thank you, that is correct. sorry, it isn't.",
)

DIALOG = ' \n#instruction: {}\n#context: "{}"'
REGION = "\n#region: "
GROUNDING = ("which region does the context describe?", "can you specify which region the context describes?")
ORACLE = (
    "answer the question based on the region with yes or no.",
    "answer the question based on the region.",
    "state your query about the region.",
)
QUESTIONER = ("ask a close-ended question to guess what i want.", "ask a question to guess what i want.")


def plural(name: str) -> str:
    """Return the plural of a thing, of its first noun where more is said about it (`man in red`)."""
    noun, *rest = re.split(r"( in | with )", name, maxsplit=1)
    if noun in PLURALS:
        noun = PLURALS[noun]
    else:
        noun += "es" if noun.endswith(("s", "ch", "sh")) else "s"
    return "".join([noun, *rest])


def things() -> Iterator[str]:
    """Name everything that a sentence may be about, shapes first."""
    for size, colour, shape in product(SIZES, COLOURS, SHAPES):
        yield f"{size} {colour} {shape}"
    yield from (f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))
    yield from (*PEOPLE, *ANIMALS, *THINGS)
    for index, person in enumerate(PEOPLE):
        yield f"{person} in {COLOURS[index % len(COLOURS)]}"
        yield f"{person} with the {CLOTHES[index]}"


def captions() -> Iterator[str]:
    """Describe pictures of shapes and photographs."""
    names = list(things())
    for index, name in enumerate(names):
        other = names[(index * 7 + 5) % len(names)]
        yield f" a {name} is {RELATIONS[index % len(RELATIONS)]} a {other}."
        yield f" the {name} on the {SIDES[index % len(SIDES)]} side of the picture"
        yield f" there is a {name} and a {other} in the image."
        yield f" the {EXTREMES[index % len(EXTREMES)]} {name}"
    for index, (count, shape) in enumerate(product(COUNTS, SHAPES)):
        others = COUNTS[(index * 5 + 3) % len(COUNTS)]
        yield f" there are {count} {plural(shape)} and {others} {COLOURS[index % len(COLOURS)]} ones."
    for index, (who, deed) in enumerate(product((*PEOPLE, *ANIMALS), DEEDS)):
        thing, clothes = THINGS[index % len(THINGS)], CLOTHES[index % len(CLOTHES)]
        yield f" a {who} {deed} {PLACES[index % len(PLACES)]} with a {thing}."
        yield f" the {who} {deed} near the {thing}, in a {COLOURS[index % len(COLOURS)]} {clothes}"


def questions() -> Iterator[tuple[str, str]]:
    """Ask about one thing of a picture, with an answer each, in the manner of GuessWhat?!."""
    answers = ("yes", "no", "no", "yes", "n/a")
    asked = [f"is it a {name}?" for name in (*SHAPES, *PEOPLE, *ANIMALS, *THINGS, "vehicle", "animal", "piece of food")]
    asked += [f"is it {colour}?" for colour in COLOURS]
    asked += [f"is it {size}?" for size in SIZES]
    asked += [f"is it on the {side}?" for side in SIDES]
    asked += [f"is it the {extreme} one?" for extreme in EXTREMES]
    asked += [f"is it {relation} the {COLOURS[index % 8]} one?" for index, relation in enumerate(RELATIONS)]
    asked += [f"is he {deed}?" for deed in DEEDS] + [f"is she wearing a {clothes}?" for clothes in CLOTHES]
    asked += ["is it in the foreground?", "is it in the background?", "can you see all of it?", "does it have wheels?"]
    for index, question in enumerate(asked):
        yield question, answers[index % len(answers)]
    for index, name in enumerate(things()):
        yield f"what color is the {name}?", COLOURS[index % len(COLOURS)]
        yield f"how many {plural(name)} are there?", COUNTS[index % len(COUNTS)]
        yield f"where is the {name}?", f"on the {SIDES[index % len(SIDES)]}."


def dialogs() -> Iterator[str]:
    """Write the dialog tasks' source texts, without the box tokens that would follow `#region: `."""
    pairs = list(questions())
    for index in range(0, len(pairs) - 1, 2):
        (first, reply), (second, final) = pairs[index], pairs[index + 1]
        asked = f"agent: {first} human: {reply} agent: {second} human: {final}"
        yield DIALOG.format(GROUNDING[index // 2 % len(GROUNDING)], asked)
        yield DIALOG.format(ORACLE[index // 2 % len(ORACLE)], f"human: {first} agent: {reply} human: {second}") + REGION
        yield DIALOG.format(QUESTIONER[index // 2 % len(QUESTIONER)], f"human: the one i want. {asked}")
        yield f" not yet. {first}"


def corpus() -> Iterator[str]:
    """Yield every text that the vocabulary is trained on."""
    yield from (*PROMPTS * 20, *SENTENCES * 2)
    for caption in captions():
        yield caption
        yield f' which region does the text "{caption} " describe?'
        yield f' does the image describe "{caption} "?'
    for question, answer in questions():
        yield f" {question}"
        yield f" {answer}"
    yield from dialogs()
    for number, shape in product(range(21), SHAPES):
        yield f" there are {number} {plural(shape)}."


def train(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """Return `count` merges of byte-level BPE: each time the most frequent pair, of equals the first in order.

    The words must be long enough together to be worth that many.
    """
    spelled = {word: list(byte_symbols(word.encode("utf-8"))) for word in words}
    known = {symbol for spelling in spelled.values() for symbol in spelling}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, spelling in spelled.items():
            for pair in pairwise(spelling):
                pairs[pair] += words[word]
        # A token made in two ways would have two ranks.
        fresh = [pair for pair in pairs if "".join(pair) not in known]
        best = min(fresh, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        known.add("".join(best))
        for word, spelling in spelled.items():
            spelled[word] = _merged(spelling, best)
    return merges


def _merged(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    index = 0
    while index < len(spelling):
        step = 2 if tuple(spelling[index : index + 2]) == pair else 1
        joined.append("".join(spelling[index : index + step]))
        index += step
    return joined


def vocabulary_files() -> dict[str, str]:
    """Return the content of each file by its name."""
    texts = list(corpus())
    merges = train(Counter(word for text in texts for word in split_words(text)), MERGES)
    # The order of the official file: visible bytes, which stand for themselves, before the rest; merges; end of text.
    tokens = sorted(byte_symbols(bytes([byte])) for byte in range(256))
    tokens += ["".join(pair) for pair in merges]
    token_ids = {token: index for index, token in enumerate([*tokens, "<|endoftext|>"])}

    bpe = ByteLevelBPE(token_ids, merges)
    uses = Counter(token for text in texts for token in bpe.encode(text))
    by_use = sorted(token_ids.values(), key=lambda token: (-uses[token], token))
    lines = [f"{token} {uses[token]}" for token in by_use] + [f"{symbol} 0" for symbol in UNUSED]
    return {
        "encoder.json": json.dumps(token_ids) + "\n",
        "vocab.bpe": "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in merges)]) + "\n",
        "dict.txt": "\n".join(lines) + "\n",
    }


def main(arguments: list[str] | None = None) -> None:
    """Write the files into `--out`, by default the directory in the package."""
    parser = argparse.ArgumentParser(description="Train the small vocabulary and write its three files.")
    parser.add_argument(
        "--out", type=Path, default=small_vocabulary_dir(), help="where to write (default: %(default)s)"
    )
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name, content in vocabulary_files().items():
        (out / name).write_bytes(content.encode("utf-8"))
        print(f"{out / name}: {len(content)} characters")


if __name__ == "__main__":
    main()
