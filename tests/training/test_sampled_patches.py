"""Runs in which the encoder sees some patches of each picture, drawn anew in every pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bench.runs import write_data
from pydantic import ValidationError
from training.made import COLOURS, TOKENIZER, Questions, example, nano, settings

from ofa_core import ImageTransform, OFAError
from ofa_core.model.encoder import ImageFeatures
from ofa_core.training.batches import Batches
from ofa_core.training.losses import LossModule
from ofa_core.training.run import make_trainer
from ofa_core.training.setting_tables import LossSettings

TRANSFORM = ImageTransform(64)
SHAPES = {"task": "shapes", "options": {"weights": {"ground": 1}}}


class Texts:
    """Rows without pictures."""

    def examples(self, index: int) -> list[Any]:
        return [example(f" say {COLOURS[index % 6]}", f" {COLOURS[index % 6]}")]


def mixed(count: int | None) -> Batches:
    sources = [Questions(), Questions(), Texts()]
    return Batches(sources, [1, 1, 1], TOKENIZER, TRANSFORM, batch_size=3, patch_counts=[count, None, count])


def seen_by(loss: LossModule, batch: Any) -> list[tuple[int, bool]]:
    """Of each pass of the encoder, how many patches it sees, and whether they are places of their own."""
    seen: list[tuple[int, bool]] = []
    encode = loss.model.encode

    def noted(tokens: torch.Tensor, images: ImageFeatures | None = None, mask: Any = None) -> Any:
        seen.append((0, False) if images is None else (images.patches.shape[1], images.places is not None))
        return encode(tokens, images, mask)

    loss.model.encode = noted  # type: ignore[method-assign]
    loss(batch)
    del loss.model.encode
    return seen


def test_pictures_of_the_sources_that_ask_for_it_are_seen_in_part() -> None:
    batch = mixed(5)[0]
    assert sorted(int(group.patches) for group in batch.groups) == [0, 5]
    of_some = next(group for group in batch.groups if int(group.patches))
    assert len(of_some.tokens) == 2  # the two examples of the first source's row
    model = nano()
    loss = LossModule(model, TOKENIZER.vocabulary, LossSettings())
    assert sorted(seen_by(loss, batch)) == [(5, True), (16, False)]
    assert seen_by(loss, mixed(None)[0]) == [(16, False)]


def test_the_loss_is_that_of_the_patches_that_are_drawn() -> None:
    model = nano().eval()
    loss = LossModule(model, TOKENIZER.vocabulary, LossSettings(label_smoothing=0.0))
    batch = Batches([Questions()], [1], TOKENIZER, TRANSFORM, batch_size=2, patch_counts=[5])[0]
    (group,) = batch.groups
    torch.manual_seed(7)
    found = float(loss(batch)[0].detach())
    torch.manual_seed(7)
    features = model.image_features(batch.pixels[0]).select(group.pictures).sample_patches(5)
    logits = model(group.tokens, group.prefix, features)
    real = group.target.ne(1)
    expected = torch.nn.functional.cross_entropy(logits[real], group.target[real], reduction="sum")
    assert found == pytest.approx(float(expected.detach()), rel=1e-6)
    assert float(loss(batch)[0].detach()) != pytest.approx(found, rel=1e-6)  # the next pass draws others


def test_all_patches_in_any_order_are_the_picture() -> None:
    loss = LossModule(nano().eval(), TOKENIZER.vocabulary, LossSettings())
    batches = [
        Batches([Questions()], [1], TOKENIZER, TRANSFORM, batch_size=2, patch_counts=[count])[0] for count in (16, None)
    ]
    first, second = (float(loss(batch)[0]) for batch in batches)
    assert first == pytest.approx(second, rel=1e-5)


def test_examples_of_one_picture_that_are_seen_in_part_share_the_stem() -> None:
    batch = Batches([Questions()], [1], TOKENIZER, TRANSFORM, batch_size=1, patch_counts=[5])[0]
    assert len(batch.pixels[0]) == 1
    assert batch.groups[0].pictures.tolist() == [0, 0]


def test_more_patches_than_there_are_are_refused(tmp_path: Path) -> None:
    data = {"task": "refcoco_grounding", "path": write_data(tmp_path, 2)["refcoco"], "images": tmp_path / "images"}
    said = r"sample_patch_num is 17, and pictures of 64 × 64 pixels have 16 patches"
    for table in (data, SHAPES):
        with pytest.raises(OFAError, match=said):
            make_trainer(settings(tmp_path / "run", data=[table | {"sample_patch_num": 17}]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out": [{"task": "refcoco_grounding", "sample_patch_num": 4}]}, "held_out shows whole pictures"),
        (
            {
                "data": [{"task": "caption_references", "path": "x", "sample_patch_num": 4}],
                "loss": {"self_critical": {}},
            },
            "sample_patch_num does not go with self_critical",
        ),
        ({"data": [SHAPES | {"sample_patch_num": 0}]}, "greater than 0"),
    ],
    ids=["held out", "self-critical", "none"],
)
def test_where_it_has_no_meaning_it_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(tmp_path, **changes)


def test_a_run_of_before_there_was_such_a_setting_goes_on(tmp_path: Path) -> None:
    run = settings(tmp_path)
    assert "sample_patch_num" not in run.fingerprint()
    assert "cache_features" not in run.fingerprint()
    changed = settings(tmp_path, data=[SHAPES | {"sample_patch_num": 4}])
    assert '"sample_patch_num": 4' in changed.fingerprint()
