"""Image codes of rows that hold pictures: those of `encode_image`, made once, and found again whatever happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_core import OFA, OFAError, TaskSettings, Tokenizer, load
from ofa_core.checkpoint.image_codes import VQGAN_FILE
from ofa_core.data.examples import Example
from ofa_core.heads.image_codes import encode_pixels
from ofa_core.text import small_vocabulary_dir
from ofa_core.training import picture_codes
from ofa_core.training.picture_codes import PictureCodes
from ofa_core.training.run import train
from ofa_core.training.setting_tables import DataSettings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.sources import make_source
from ofa_core.vision.vqgan import VQGAN, VQGANConfig
from tests.reference import lively_ofa, synth

CODES, SIDE = 32, 32
CONFIG: dict[str, Any] = {
    "channels": 32, "multipliers": (1, 1, 1, 2), "blocks": 1, "attention_levels": (3,), "latent_channels": 8,
    "code_dim": 8, "num_codes": CODES,
}  # fmt: skip


def ofa_with(**changes: Any) -> OFA:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=CODES)
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=CODES)
    plain = lively_ofa(tokenizer=tokenizer, code_image_size=SIDE, task=task)
    torch.manual_seed(0)
    vqgan = VQGAN(VQGANConfig(**CONFIG | changes)).eval().requires_grad_(False)
    return OFA(plain.model, plain.tokenizer, vqgan=vqgan)


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return ofa_with()


@pytest.fixture(scope="module")
def model(ofa: OFA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "model"
    ofa.save(directory)
    return directory


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rows")
    lines = []
    for number, (width, height) in enumerate(((60, 40), (32, 50), (64, 64))):
        Image.fromarray(synth.synth_image(height, width, number)).save(directory / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "text": f"a dog {number}"}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def settings(task: str, model: Path, rows: Path, cache: Path) -> DataSettings:
    data = {"path": rows / "captions.jsonl", "images": rows, "codes_from": model, "codes_cache": cache}
    return DataSettings(task=task, **data)


def examples(ofa: OFA, data: DataSettings) -> list[Example]:
    source = make_source(data, ofa.pipeline, seed=0)
    return [example for index in range(3) for example in source.examples(index)]


def codes_in(ofa: OFA, example: Example) -> list[int]:
    return [token - ofa.tokenizer.vocabulary.code_start for token in example.target[:-1]]


def test_drawing_teaches_the_codes_that_encode_image_gives(ofa: OFA, model: Path, rows: Path, tmp_path: Path) -> None:
    found = examples(ofa, settings("image_gen", model, rows, tmp_path / "codes"))
    due = [ofa.encode_image(rows / f"{number}.png", side=SIDE).reshape(-1).tolist() for number in range(3)]
    assert sorted(codes_in(ofa, example) for example in found) == sorted(due)
    assert all(example.codes for example in found)
    captions = sorted(ofa.tokenizer.decode(example.source) for example in found)
    assert [caption[-8:].strip(" .?") for caption in captions] == ["a dog 0", "a dog 1", "a dog 2"]


def test_infilling_teaches_the_codes_of_the_middle_that_is_hidden(
    ofa: OFA, model: Path, rows: Path, tmp_path: Path
) -> None:
    found = examples(ofa, settings("pretrain_image", model, rows, tmp_path / "codes"))
    due = []
    for number in range(3):
        whole = Image.open(rows / f"{number}.png").convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
        due.append(encode_pixels(ofa.vqgan, np.asarray(whole)[None, 16:48, 16:48])[0].reshape(-1).tolist())
    assert sorted(codes_in(ofa, example) for example in found) == sorted(due)


def test_codes_are_made_once(
    ofa: OFA, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        return encode_pixels(*arguments, **keywords)

    monkeypatch.setattr(picture_codes, "encode_pixels", counted)
    data = settings("image_gen", model, rows, tmp_path / "codes")
    first = examples(ofa, data)
    assert calls == 3
    again = examples(ofa, data)
    assert calls == 3
    assert [e.target for e in again] == [e.target for e in first]


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "other", "cut"])
def test_what_is_damaged_is_made_again(ofa: OFA, model: Path, rows: Path, tmp_path: Path, damage: bytes | None) -> None:
    data = settings("image_gen", model, rows, tmp_path / "codes")
    first = examples(ofa, data)
    files = sorted((tmp_path / "codes").glob("*/*.codes"))
    assert len(files) == 3
    whole = [path.read_bytes() for path in files]
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert [e.target for e in examples(ofa, data)] == [e.target for e in first]
    assert [path.read_bytes() for path in files] == whole


def test_other_weights_have_other_codes(model: Path, rows: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(rows / "2.png").convert("RGB").resize((32, 32)))
    cache = tmp_path / "codes"
    PictureCodes(model, cache).of(pixels)
    other = ofa_with()
    with torch.no_grad():
        other.vqgan.quantize.proj.weight.neg_()
    other.save(tmp_path / "other")
    assert not np.array_equal(PictureCodes(tmp_path / "other", cache).of(pixels), PictureCodes(model, cache).of(pixels))
    assert len(list(cache.glob("*/*.codes"))) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"encoder": False}, "has no encoder"), ({"multipliers": (1, 2)}, "a code is 2 pixels wide; it should be 8")],
)
def test_networks_that_make_no_codes_of_pictures_are_refused(
    changes: dict[str, Any], reason: str, rows: Path, tmp_path: Path
) -> None:
    ofa = ofa_with(**changes, attention_levels=())
    ofa.save(tmp_path / "model")
    with pytest.raises(OFAError, match=reason):
        examples(ofa, settings("image_gen", tmp_path / "model", rows, tmp_path / "codes"))


def test_lessons_without_codes_are_refused(ofa: OFA, model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OFAError, match=r"'caption' has no image codes; codes_from is for image_gen and pretrain_image$"
    ):
        examples(ofa, settings("caption", model, rows, tmp_path / "codes"))


def test_a_model_without_a_network_is_refused(ofa: OFA, rows: Path, tmp_path: Path) -> None:
    OFA(ofa.model, ofa.tokenizer).save(tmp_path / "plain")
    with pytest.raises(OFAError, match=r"has no vqgan\.safetensors"):
        examples(ofa, settings("image_gen", tmp_path / "plain", rows, tmp_path / "codes"))


def test_some_texts_are_left_out(ofa: OFA, model: Path, rows: Path, tmp_path: Path) -> None:
    """Others in another round, the same ones in the same round of the same run, and never the codes."""
    data = settings("image_gen", model, rows, tmp_path / "codes")
    plain, dropping = (make_source(one, ofa.pipeline, seed=0) for one in (data, some_without_text(data, 0.5)))
    without = ofa.pipeline.encode(" what is the complete image? caption: ")
    left_out = []
    for index in range(60):
        (whole,), (found,) = plain.examples(index), dropping.examples(index)
        assert found.target == whole.target
        assert found.codes
        left_out.append(found.source == without)
        assert left_out[-1] or found.source == whole.source
    assert 15 < sum(left_out) < 45
    again = make_source(some_without_text(data, 0.5), ofa.pipeline, seed=0)
    assert [again.examples(index)[0].source == without for index in range(60)] == left_out


def some_without_text(data: DataSettings, share: float) -> DataSettings:
    return data.model_copy(update={"text_dropout": share})


def test_a_text_is_left_out_of_drawing_alone(ofa: OFA, rows: Path) -> None:
    data = DataSettings(task="caption", path=rows / "captions.jsonl", images=rows, text_dropout=0.1)
    with pytest.raises(OFAError, match=r"^the training task 'caption' needs its text; text_dropout is for image_gen$"):
        make_source(data, ofa.pipeline, seed=0)


def recipe(tmp_path: Path, rows: Path, codes_from: Path, **more: Any) -> TrainingSettings:
    data = {"task": "image_gen", "path": rows / "captions.jsonl", "images": rows, "codes_from": codes_from}
    base: dict[str, Any] = {"out": tmp_path / "run", "data": [data | {"codes_cache": tmp_path / "codes"}], "steps": 1}
    return TrainingSettings.model_validate(base | {"batch_size": 2, "recipe": "modern"} | more)


def new_model() -> dict[str, Any]:
    task = {"name": "image_gen", "image_size": 32, "max_image_size": 32, "code_dict_size": CODES}
    small = {"embed_dim": 16, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 1, "num_heads": 2}
    return {"config": {**small, "stem_depths": [1, 1, 1], "code_image_size": SIDE, "task": task}}


def test_a_new_model_gets_the_network_that_made_its_codes(model: Path, rows: Path, tmp_path: Path) -> None:
    """From the network's file alone, where there is no model yet; and it says what it has learned."""
    settings = recipe(tmp_path, rows, model / VQGAN_FILE, new_model=new_model())
    train(settings)
    trained = load(settings.out / "last")
    assert trained.draws
    assert "image_gen" in trained.config.task.learned
    for name, tensor in load(model).vqgan.state_dict().items():
        assert torch.equal(trained.vqgan.state_dict()[name], tensor), name
    (drawn,) = trained.imagine("a dog", count=1, seed=1)
    assert drawn.image.size == (SIDE, SIDE)


def test_the_network_of_the_base_model_stays_with_it(model: Path, rows: Path, tmp_path: Path) -> None:
    captions = {"task": "caption", "path": rows / "captions.jsonl", "images": rows}
    settings = recipe(tmp_path, rows, model, model=model, data=[captions])
    train(settings)
    assert (settings.out / "last" / VQGAN_FILE).read_bytes() == (model / VQGAN_FILE).read_bytes()


def test_codes_of_two_networks_are_refused(model: Path, rows: Path, tmp_path: Path) -> None:
    one = recipe(tmp_path, rows, model, new_model=new_model()).model_dump()
    other = one["data"][0] | {"codes_from": model / VQGAN_FILE}
    settings = TrainingSettings.model_validate(one | {"data": [one["data"][0], other]})
    with pytest.raises(OFAError, match=r"a model's codes are of one network$"):
        train(settings)
