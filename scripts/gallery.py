"""Make the pictures of the documentation, and the page that shows them: ``make gallery``.

Each shows answers of the demo models, which know drawn shapes.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from page_tables import filled, rewrite
from PIL import Image, ImageDraw, ImageFont

import ofa_core
from ofa_core import OFA
from ofa_core.checkpoint.names import DRAWING_DEMO
from ofa_core.demo.example import BLUE_SQUARE, example_picture
from ofa_core.demo.world import draw, make_scene
from ofa_core.vision.boxes import Box
from ofa_core.vision.drawing import draw_box
from ofa_core.vision.images import open_image

ROOT = Path(__file__).parent.parent
PICTURES, PAGE = ROOT / "docs" / "pictures", ROOT / "docs" / "gallery.md"

#: Width to which pictures are enlarged, by a whole factor, in pixels.
WIDTH = 640
#: Width of the column of text beside a picture, and its font's size, in pixels.
COLUMN, TEXT_SIZE = 560, 26
#: Letters of a line in that column.
LETTERS = 38
#: Texts of which pictures are drawn, and the number of pictures of each.
DRAWN_TEXTS = ("a red circle and a blue square", "a yellow star", "a green ring and a purple triangle")
DRAWN = 4
INK, PAPER, PALE = (30, 30, 40), (255, 255, 255), (110, 110, 125)
#: The colour of boxes, which no shape has.
MARK = (230, 0, 120)

#: A picture and the words below it.
Shown = tuple[Image.Image, str]


def ground(ofa: OFA) -> Shown:
    """A phrase and its box."""
    found = ofa.ground(example_picture(), "the red circle")
    picture = boxed(example_picture(), (found.box, "the red circle"))
    return picture, f'`ofa.ground(picture, "the red circle")`: {at(found.box)}'


def dialog(ofa: OFA) -> Shown:
    """A conversation that ends with a box, in which the model plays both parts."""
    scene = make_scene(11, "test")
    picture, wanted = draw(scene), scene.things[0].box
    conversation = ofa.chat(picture)
    said, turns = "i want one of the shapes.", []
    for _ in range(3):
        turn = conversation.say(said)
        turns += [("person", said), ("model", turn.text)]
        if turn.done:
            break
        heard = [*(words for pair in conversation.history[:-1] for words in pair), said]
        said = ofa.oracle(picture, wanted, heard, turn.text, style="invig").answer
    box = turn.box or conversation.ground(said).box
    if not turn.done:
        turns += [("person", said)]
    spoken = [*turns, ("model", at(box))]
    return beside(boxed(picture, (box, "")), spoken), "`ofa.chat(picture)`: questions until the region is known"


def detect(ofa: OFA) -> Shown:
    """Everything in a picture."""
    things = ofa.detect(example_picture())
    picture = boxed(example_picture(), *((thing.box, thing.label) for thing in things))
    return picture, f"`ofa.detect(picture)`: {', '.join(thing.label or at(thing.box) for thing in things) or 'nothing'}"


def explain(ofa: OFA) -> Shown:
    """The places where the decoder looked."""
    explanation = ofa.explain(example_picture(), "the red circle")
    return enlarged(explanation.draw()), '`ofa.explain(picture, "the red circle")`: where the model looked'


def oracle(ofa: OFA) -> Shown:
    """Questions about a region."""
    asked = ("is it blue?", "is it a circle?", "is it on the left?")
    lines = [(question, ofa.oracle(example_picture(), BLUE_SQUARE, [], question).answer) for question in asked]
    spoken = [part for question, answer in lines for part in (("person", question), ("model", answer))]
    return beside(
        boxed(example_picture(), (BLUE_SQUARE, "")), spoken
    ), "`ofa.oracle(picture, box, [], question)`: yes, no or n/a"


def describe(ofa: OFA) -> Shown:
    """A caption and answers to questions."""
    questions = ("what color is the square?", "what color is the triangle?")
    lines = [("caption", ofa.caption(example_picture()).text)]
    for question in questions:
        lines += [("person", question), ("model", ofa.answer(example_picture(), question).answer)]
    return beside(enlarged(example_picture()), lines), "`ofa.caption(picture)`, `ofa.answer(picture, question)`"


def imagine(_: OFA) -> Shown:
    """Pictures that the model which draws makes of texts."""
    painter = ofa_core.load(DRAWING_DEMO)
    rows = [(text, [one.image for one in painter.imagine(text, count=DRAWN, seed=1)]) for text in DRAWN_TEXTS]
    side, font = WIDTH // DRAWN, ImageFont.load_default(size=TEXT_SIZE)
    whole = Image.new("RGB", (WIDTH, len(rows) * (side + 2 * TEXT_SIZE)), PAPER)
    pen = ImageDraw.Draw(whole)
    for number, (text, pictures) in enumerate(rows):
        top = number * (side + 2 * TEXT_SIZE)
        pen.text((TEXT_SIZE // 2, top + TEXT_SIZE // 4), text, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            resized = picture.resize((side - 4, side - 4), Image.Resampling.LANCZOS)
            whole.paste(resized, (column * side + 2, top + 3 * TEXT_SIZE // 2))
    return whole, "`painter.imagine(text)`, of the model `demo-pictures`: the likeliest first"


#: The pictures by their names, in the order in which the page shows them.
MAKERS: Mapping[str, Callable[[OFA], Shown]] = {
    "ground": ground,
    "dialog": dialog,
    "explain": explain,
    "detect": detect,
    "oracle": oracle,
    "describe": describe,
    "imagine": imagine,
}


def scale_of(picture: Image.Image) -> int:
    """The factor by which a picture is enlarged."""
    return max(1, round(WIDTH / picture.width))


def enlarged(picture: Image.Image) -> Image.Image:
    """A picture at the size at which pages show it."""
    scale = scale_of(picture)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)


def boxed(picture: Image.Image, *boxes: tuple[Box | None, str]) -> Image.Image:
    """An enlarged picture with boxes of its own pixels, each with its label."""
    scale, shown = scale_of(picture), enlarged(picture)
    for box, label in boxes:
        if box is not None:
            x0, y0, x1, y1 = box
            shown = draw_box(shown, (x0 * scale, y0 * scale, x1 * scale, y1 * scale), label, MARK)
    return shown


def at(box: Box | None) -> str:
    """A box in words."""
    return "no box" if box is None else f"the box {tuple(round(value) for value in box)}"


def beside(picture: Image.Image, lines: Sequence[tuple[str, str]]) -> Image.Image:
    """A picture with a conversation at its right, each line with who speaks."""
    speaker, words = ImageFont.load_default(size=TEXT_SIZE * 2 // 3), ImageFont.load_default(size=TEXT_SIZE)
    whole = Image.new("RGB", (picture.width + COLUMN, picture.height + 8 * TEXT_SIZE * len(lines)), PAPER)
    whole.paste(picture)
    pen, y = ImageDraw.Draw(whole), TEXT_SIZE // 2
    for who, text in lines:
        pen.text((picture.width + TEXT_SIZE, y), who, fill=PALE, font=speaker)
        y += TEXT_SIZE * 3 // 4
        for part in textwrap.wrap(text, LETTERS):
            pen.text((picture.width + TEXT_SIZE, y), part, fill=INK, font=words)
            y += TEXT_SIZE * 5 // 4
        y += TEXT_SIZE // 2
    return whole.crop((0, 0, whole.width, max(picture.height, y)))


def table(captions: Mapping[str, str]) -> str:
    """The part of the page between its marks."""
    return "".join(f"\n![{name}](pictures/{name}.png)\n\n{caption}\n" for name, caption in captions.items()) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], help="pictures to make; all of them by default")
    names = parser.parse_args(argv).names or list(MAKERS)
    ofa = ofa_core.load("demo")
    PICTURES.mkdir(exist_ok=True)
    captions = {}
    for name in names:
        picture, captions[name] = MAKERS[name](ofa)
        open_image(picture).quantize(128).save(PICTURES / f"{name}.png", optimize=True)
        print(f"{PICTURES / name}.png: {captions[name]}")
    if len(captions) == len(MAKERS):
        rewrite(PAGE, lambda text: filled("gallery", {"pictures": lambda: table(captions)}, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
