"""A run whose stem stays as it is learns the same from features that were kept as from pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.runs import write_data
from training.made import nano, settings

from ofa_core import OFAError, OFAModel
from ofa_core.training import feature_cache as module
from ofa_core.training.feature_cache import FeatureCache, room_text
from ofa_core.training.run import make_trainer, train
from ofa_core.training.trainer import Trainer

#: The largest difference of a loss, to its size, and of a gradient, to the largest.
TOLERANCE = 1e-6
#: Pictures of the rows that runs learn from.
PICTURES = 4


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Settings of a run of a few epochs with a stem at rest."""
    rows = write_data(tmp_path, 2 * PICTURES)["refcoco"]

    def made(name: str, **changes: Any) -> Any:
        data = {"task": "refcoco_grounding", "path": rows, "images": tmp_path / "images"}
        fields = {"freeze": ["stem"], "freeze_batch_norm": True, "data": [data], "steps": 6, "batch_size": 2}
        return settings(tmp_path / name, **(fields | changes))

    return made


@contextmanager
def counted_pictures(model: OFAModel) -> Iterator[list[int]]:
    """How many pictures went through the stem, batch by batch."""
    seen: list[int] = []
    handle = model.encoder.image_stem.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    yield seen
    handle.remove()


def ran(settings: Any) -> tuple[Trainer, list[int], list[float]]:
    """A run to its end, the pictures that its stem saw, and its losses."""
    trainer = make_trainer(settings)
    with counted_pictures(trainer.model) as seen:
        trainer.run()
    rows = [json.loads(line) for line in (settings.out / "log.jsonl").read_text().splitlines()]
    return trainer, seen, [row["loss"] for row in rows]


def gradients_of(settings: Any) -> dict[str, torch.Tensor]:
    """The gradients of the first step of a run, which moves nothing."""
    trainer = make_trainer(settings)
    found: dict[str, torch.Tensor] = {}

    def kept(factor: float) -> float:
        found.update({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
        return 0.0

    trainer._update = kept  # type: ignore[method-assign]
    trainer.run()
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": 1},
        {"accumulate": 2},
        {"autocast": "bfloat16"},
        {"loss": {"rdrop": 1.0, "rdrop_rule": "original"}},
    ],
    ids=str,
)
def test_losses_are_those_of_a_run_without_it(run: Callable[..., Any], changes: dict[str, Any]) -> None:
    _, whole, losses = ran(run("plain", **changes))
    kept, seen, with_cache = ran(run("kept", cache_features={}, **changes))
    assert with_cache == pytest.approx(losses, rel=TOLERANCE)
    assert sum(seen) == PICTURES if not changes.get("workers") else sum(seen) < sum(whole)  # which look ahead
    _, seen, losses = ran(run("again", cache_features={"directory": str(kept.settings.out / "features")}, **changes))
    assert seen == []
    assert losses == with_cache  # to the last bit


def test_gradients_are_equal(run: Callable[..., Any]) -> None:
    plain = gradients_of(run("plain", steps=1))
    directory = str(run("first").out / "features")
    largest = max(float(grad.abs().max()) for grad in plain.values())
    assert largest > 0
    for name, cache in (("first", {}), ("second", {"directory": directory})):
        found = gradients_of(run(name, steps=1, cache_features=cache))
        assert found.keys() == plain.keys()
        for weight, grad in plain.items():
            assert float((found[weight] - grad).abs().max()) <= TOLERANCE * largest, (name, weight)


def test_a_low_rank_adapter_is_trained_on_it_too(run: Callable[..., Any]) -> None:
    train(run("base", steps=1))
    given = {"model": run("base").out / "last", "new_model": None, "freeze": [], "lora": {}}
    _, _, losses = ran(run("plain", **given))
    _, seen, with_cache = ran(run("kept", cache_features={}, **given))
    assert sum(seen) == PICTURES
    assert with_cache == pytest.approx(losses, rel=TOLERANCE)


def test_a_damaged_entry_is_computed_again(run: Callable[..., Any]) -> None:
    kept, _, losses = ran(run("kept", cache_features={}))
    entries = sorted((kept.settings.out / "features").rglob("*.safetensors"))
    assert len(entries) == PICTURES
    whole = [path.read_bytes() for path in entries]
    entries[0].write_bytes(whole[0][: len(whole[0]) // 2])
    entries[1].write_bytes(whole[1][:-9] + bytes(byte ^ 1 for byte in whole[1][-9:]))
    entries[2].write_bytes(b"")
    directory = str(kept.settings.out / "features")
    _, seen, found = ran(run("again", cache_features={"directory": directory}))
    assert sum(seen) == 3
    assert found == losses
    assert [path.read_bytes() for path in entries] == whole


def test_another_stem_finds_nothing(run: Callable[..., Any]) -> None:
    kept, *_ = ran(run("kept", cache_features={}))
    directory = str(kept.settings.out / "features")
    _, seen, _ = ran(run("other", seed=5, cache_features={"directory": directory}))
    assert sum(seen) == PICTURES
    assert len(list(Path(directory).rglob("*.safetensors"))) == 2 * PICTURES


def test_half_the_room_is_close(run: Callable[..., Any]) -> None:
    exact, _, losses = ran(run("exact", cache_features={}))
    narrow, _, found = ran(run("narrow", cache_features={"dtype": "float16"}))
    assert losses != found == pytest.approx(losses, rel=1e-3)
    again = run("again", cache_features={"dtype": "float16", "directory": str(narrow.settings.out / "features")})
    assert ran(again)[1:] == ([], found)  # what is kept counts from the first step on
    sizes = [
        sum(path.stat().st_size for path in (trainer.settings.out / "features").rglob("*.safetensors"))
        for trainer in (exact, narrow)
    ]
    assert 1.9 < sizes[0] / sizes[1] < 2.1


def test_what_has_no_room_is_computed_every_time(run: Callable[..., Any]) -> None:
    one = 4 * 4 * 1024 * 4
    _, _, losses = ran(run("plain"))
    kept, seen, found = ran(run("kept", cache_features={"max_gib": 2.5 * one / 2**30}))
    assert len(list((kept.settings.out / "features").rglob("*.safetensors"))) == 2
    assert sum(seen) > PICTURES
    assert found == pytest.approx(losses, rel=TOLERANCE)


def test_a_disk_that_takes_no_more_ends_no_run(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    trainer, _, losses = ran(run("kept", cache_features={}))
    assert len(losses) == 6
    said = [line for line in capsys.readouterr().err.splitlines() if "takes no more" in line]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list((trainer.settings.out / "features").rglob("*.*"))


def test_a_run_says_how_much_it_may_keep(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(run("kept", cache_features={"max_gib": 2.0}))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cache_features: ")]
    assert re.search(rf"kept/features may hold features of {2 * PICTURES} pictures, 0\.00 GiB, at most 2\.00 GiB", line)
    base = room_text(FeatureCache(Path("x")), [(17_000, 1024), (10, 576)], free=7 << 30)
    assert (
        base
        == "cache_features: x may hold features of 17,010 pictures, 66.43 GiB; 0.00 GiB are there, 7.00 GiB are free"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"freeze": []}, 'cache_features needs a stem that stays as it is: freeze = ["stem"], or lora'),
        ({"freeze": ["all_but_biases"]}, 'cache_features needs a stem that stays as it is: freeze = ["stem"], or lora'),
        ({"freeze_batch_norm": False}, "cache_features needs freeze_batch_norm = true: without it"),
        (
            {"data": [{"task": "shapes"}]},
            "cache_features needs pictures that stay the same, and the task 'shapes' draws",
        ),
    ],
    ids=str,
)
def test_what_does_not_stay_as_it_is_is_refused(run: Callable[..., Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OFAError, match=re.escape(said)):
        make_trainer(run("refused", cache_features={}, **changes))


def test_a_stem_that_leaves_parts_out_is_refused(run: Callable[..., Any]) -> None:
    new = run("x").new_model.model_dump()
    new["config"]["stem_drop_path"] = 0.1
    with pytest.raises(OFAError, match=r"cache_features needs config\.stem_drop_path = 0, not 0\.1"):
        make_trainer(run("refused", cache_features={}, new_model=new))


def test_an_entry_is_of_its_pixels_and_its_weights(tmp_path: Path) -> None:
    cache, pixels = FeatureCache(tmp_path), torch.rand(2, 3, 32, 32)
    cache.begin(nano(0), "cpu None")
    first = [cache.key(one) for one in pixels]
    assert len({*first, cache.key(pixels[0] + 1e-6)}) == 3
    cache.begin(nano(0), "cpu bfloat16")
    assert cache.key(pixels[0]) not in first
    cache.begin(nano(1), "cpu None")
    assert cache.key(pixels[0]) not in first
    cache.begin(nano(0), "cpu None")
    assert [cache.key(one) for one in pixels] == first
