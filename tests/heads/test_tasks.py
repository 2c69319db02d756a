"""The table of tasks: which settings and searches count for which checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from reference import lively_ofa, picture, scripted

from ofa_core import OFA, OFAError, TaskSettings
from ofa_core.heads.tasks import GLUE, KNOWN_NAMES, PRETRAINING, TASKS, fine_tuned_settings, spec_of

BOS, PAD, EOS, UNK = range(4)


def ofa_of(name: str, **task: Any) -> OFA:
    settings = {"image_size": 64, "max_image_size": 64, "code_dict_size": 0} | task
    return lively_ofa(task=TaskSettings(name=name, **settings))


def test_a_task_is_named_by_its_key() -> None:
    assert all(name == spec.name for name, spec in TASKS.items())
    assert set(GLUE) <= TASKS.keys()
    with pytest.raises(OFAError, match="there is no task 'glue'; there are cola, mnli, rte, mrpc, qnli, qqp, sst2"):
        spec_of("glue", GLUE)


@pytest.mark.parametrize(
    ("name", "beams", "prompt", "side"),
    [
        ("vqa_gen", 5, "prev_output", 64),
        (PRETRAINING, 20, "none", 480),
        ("caption", 20, "none", 64),  # fine-tuned for another task: it has learned to see at its own side
        ("ofa", 5, "prev_output", 64),  # nothing is known of it
        ("shapes", 5, "prev_output", 64),
    ],
)
def test_a_question_is_decoded_as_the_checkpoint_has_learned_to(
    monkeypatch: pytest.MonkeyPatch, name: str, beams: int, prompt: str, side: int
) -> None:
    ofa = ofa_of(name)
    calls = scripted(monkeypatch, [EOS])
    ofa.answer(picture(0), "what is it?")
    ofa.answer(picture(0), "what is it?", candidates=["red", "blue"])
    inside = ofa.tokenizer.encode(" what is it?")
    assert calls[0].options is not None
    assert (calls[0].options.num_beams, calls[0].options.normalize_scores) == (beams, False)
    assert calls[0].prefixes == [inside if prompt == "prev_output" else []]
    assert calls[1].decoder_prompt == prompt
    assert ofa.pipeline.for_task(TASKS["vqa"]).transform.size == side


def test_what_a_user_asks_for_counts_before_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa_of(PRETRAINING).answer(picture(0), "what?", decoder_prompt="src", num_beams=3)
    assert calls[0].options is not None
    assert calls[0].options.num_beams == 3
    assert calls[0].prefixes == [[*ofa_of(PRETRAINING).tokenizer.encode(" what?"), EOS]]


@pytest.mark.parametrize(
    ("method", "side"),
    [("ground", 480), ("entails", 384), ("caption", 64), ("matches", 64)],
)
def test_a_pretrained_model_sees_at_the_side_of_the_zero_shot_script(method: str, side: int) -> None:
    """A look that was made at the model's own side is taken anew at the other."""
    ofa = ofa_of(PRETRAINING, max_image_size=512)
    sides = []
    whole = ofa.model.image_features

    def features(pixels: Any) -> Any:
        sides.append(pixels.shape[-1])
        return whole(pixels)

    look = ofa.look(picture(0))
    ofa.model.image_features = features  # type: ignore[method-assign]
    given = {} if method == "caption" else {"text": "a dog"}
    seen = getattr(ofa, method)(picture(0), **given, **({"num_beams": 1} if method == "ground" else {}))
    again = getattr(ofa, method)(look, **given, **({"num_beams": 1} if method == "ground" else {}))
    assert sides == ([side, side] if side != 64 else [side])
    assert seen.score == pytest.approx(again.score, abs=1e-5)


def test_boxes_are_counted_on_the_picture_as_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ofa = ofa_of(PRETRAINING, max_image_size=512)
    start = ofa.tokenizer.vocabulary.bin_start
    scripted(monkeypatch, [start, start, start + 937, start + 937, EOS])
    found = ofa.ground(picture(0, 100, 200), "all of it")
    assert found.box == pytest.approx((0, 0, 200, 100), abs=0.2), "937 = 480 / 512 * 999"


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        ({}, {"num_beams": 5, "max_new_tokens": 16, "no_repeat_ngram_size": 3}),
        (
            {"embed_dim": 1280, "num_heads": 16},
            {"num_beams": 10, "temperature": 0.98, "length_penalty": 0.98, "max_new_tokens": 16},
        ),
    ],
    ids=["base", "huge"],
)
def test_huge_models_caption_with_their_own_search(dims: dict[str, int], options: dict[str, Any]) -> None:
    found = TASKS["caption"].options(TaskSettings(), "gpt2", dims.get("embed_dim", 768))
    assert {name: getattr(found, name) for name in options} == options


def test_chinese_captions_are_long() -> None:
    found = TASKS["caption"].options(TaskSettings(), "bert", 768)
    assert (found.num_beams, found.max_new_tokens) == (8, 128)


@pytest.mark.parametrize("name", TASKS)
def test_fine_tuning_makes_a_model_of_the_task(name: str) -> None:
    tuned = fine_tuned_settings(name, TaskSettings(name=PRETRAINING, image_size=384))
    spec = TASKS[name]
    assert tuned.name in spec.trained_as
    assert not spec.is_strange_to(tuned)
    assert spec.settings(tuned) == tuned


def test_a_model_of_ones_own_has_its_own_cut_but_for_articles() -> None:
    own = TaskSettings(name="mine", max_source_tokens=40)
    assert [TASKS[name].settings(own).max_source_tokens for name in ("vqa", "refcoco", "image_gen")] == [40] * 3
    assert [TASKS[name].settings(own).max_source_tokens for name in ("gigaword", "cola")] == [512] * 2
    strange = TaskSettings(name="caption", max_source_tokens=40)
    assert [TASKS[name].settings(strange).max_source_tokens for name in ("vqa", "gigaword")] == [80, 512]


def test_known_names_are_those_of_the_table() -> None:
    assert PRETRAINING in KNOWN_NAMES
    assert {"vqa_gen", "refcoco", "caption", "snli_ve", "gigaword", "ocr", *GLUE} <= KNOWN_NAMES
    assert "ofa" not in KNOWN_NAMES


def test_a_model_may_have_prompts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa = ofa_of("refcoco", prompts={"caption": " what is this?", "refcoco": " find {caption}"})
    encode = ofa.tokenizer.encode
    ofa.caption(picture(0))
    ofa.ground(picture(0), "It")
    ofa.caption(picture(0), prompt=" given")
    asked = [" what is this?", " find it", " given"]
    assert [call.sources[0][1:-1] for call in calls] == [encode(text) for text in asked]


def test_prompts_of_no_task_are_refused() -> None:
    with pytest.raises(OFAError, match=r"^there is no task 'captions'; there are .*caption"):
        ofa_of("refcoco", prompts={"captions": " what is this?"})
