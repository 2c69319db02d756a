from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from reference import picture, scripted

from ofa_core import OFA, OFAError, Reading
from ofa_core.heads.pipeline import PreparedImage
from ofa_core.text.normalize import ocr_characters, ocr_text, readable_text
from ofa_core.vision.padded import padded

BOS, PAD, EOS, UNK = range(4)


def test_writing_is_asked_for_as_in_training(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [*ofa.tokenizer.encode(" a red  dog"), EOS])
    found = ofa.read([picture(0), picture(1)])
    (call,) = calls
    assert call.sources == [[BOS, *ofa.tokenizer.encode(" what are the texts on the image?"), EOS]] * 2
    assert call.options is not None
    assert call.options.model_dump(exclude_defaults=True) == {"max_new_tokens": 64}
    assert isinstance(found[0], Reading)
    assert (found[0].text, found[0].without_spaces) == ("a red  dog", "areddog")


def test_a_picture_keeps_its_aspect_ratio(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    image = picture(3, 60, 90)
    ofa.read([image, ofa.look(image), ofa.pipeline.prepare(image)])
    for prepared in calls[0].pictures:
        assert isinstance(prepared, PreparedImage)
        expected = ofa.pipeline.transform(padded(image, 64))
        assert torch.equal(ofa.pipeline.transform.normalized(prepared.pixels), expected)


@pytest.mark.parametrize(
    ("size", "small"), [((200, 100), (64, 64)), ((300, 100), (64, 64)), ((1000, 500), (64, 64)), ((100, 100), (64, 64))]
)
def test_no_side_is_smaller_than_64(size: tuple[int, int], small: tuple[int, int]) -> None:
    assert padded(Image.new("RGB", size), 64).size == small


@pytest.mark.parametrize("random", [None, Random(1), Random(2)])
def test_the_edge_is_repeated_around_the_picture(random: Random | None) -> None:
    image = Image.new("RGB", (400, 100), "white")
    image.paste((255, 0, 0), (0, 0, 400, 1))
    image.paste((0, 0, 255), (0, 99, 400, 100))
    pixels = np.asarray(padded(image.resize((480, 120), Image.Resampling.NEAREST), 480, random=random)).astype(int)
    assert pixels.shape == (480, 480, 3)
    red, blue = (np.flatnonzero((abs(pixels[:, 0] - color) < 60).all(1)) for color in ((255, 0, 0), (0, 0, 255)))
    assert red[0] == 0
    assert blue[-1] == 479
    top, bottom = red[-1], 479 - blue[0]
    assert abs(top + bottom - 360) < 6
    if random is None:
        assert abs(top - bottom) <= 4, "in the middle"


def test_a_picture_is_not_changed_but_in_size() -> None:
    image = picture(1, 240, 480)
    square = padded(image, 480)
    assert (np.asarray(square)[120:360] == np.asarray(image)).all()
    assert (np.asarray(square)[:120] == np.asarray(image)[:1]).all()


def test_a_line_of_a_document_is_cut_and_stacked() -> None:
    line = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8) * 80, 480)[None, :, None].repeat(64, 0).repeat(3, 2))
    square = np.asarray(padded(line, 480, document=True))
    rows = [int(square[112 + 64 * part + 32, 240, 0]) for part in range(4)]
    assert rows == [0, 80, 160, 240]


@pytest.mark.parametrize(
    ("text", "words", "whole", "characters"),
    [
        ("Hello,  World-2 ＡＢ", 2, "hello, world-2", "hello,  wo"),
        ("ﬁne ½", 30, "fine 1⁄2", "fine 1⁄2"),
        ("  A\tB ", 30, "a b", "  a\tb "),
    ],
)
def test_writing_has_one_form(text: str, words: int, whole: str, characters: str) -> None:
    assert ocr_text(text, words) == whole
    assert ocr_characters(text, 10) == characters


def test_traditional_chinese_becomes_simplified() -> None:
    pytest.importorskip("zhconv", reason="zhconv is not installed: pip install zhconv")
    assert readable_text("繁體中文") == "繁体中文"


def test_without_its_package_chinese_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zhconv", None)
    assert readable_text("plain text") == "plain text"
    with pytest.raises(OFAError, match=r"needs zhconv to simplify it: pip install zhconv"):
        readable_text("中文")
