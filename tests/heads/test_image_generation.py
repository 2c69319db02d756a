"""Pictures from texts: what is drawn, that seeds repeat it, and what is refused. Models here are small and random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_core import (
    OFA,
    GenerationOptions,
    Imagined,
    OFAError,
    OFAModel,
    TaskSettings,
    Tokenizer,
    generate,
)
from ofa_core.generation import AllowedRange
from ofa_core.heads.image_codes import middle_square
from ofa_core.heads.image_generation import image_sources
from ofa_core.text import small_vocabulary_dir
from ofa_core.vision.vqgan import VQGAN, VQGANConfig
from tests.reference import lively_ofa, picture

CODES, SIDE = 32, 4
TEXT = "a red square"


@pytest.fixture(scope="module")
def ofa() -> OFA:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=CODES)
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=CODES)
    plain = lively_ofa(tokenizer=tokenizer, code_image_size=SIDE * 8, task=task)
    torch.manual_seed(0)
    config = VQGANConfig(
        channels=32, multipliers=(1, 1, 1, 2), blocks=1, attention_levels=(3,), latent_channels=8, code_dim=8,
        num_codes=CODES,
    )  # fmt: skip
    vqgan = VQGAN(config).eval().requires_grad_(False)
    return OFA(plain.model, plain.tokenizer, vqgan=lambda: vqgan)


def same(first: Imagined, second: Imagined) -> bool:
    return np.array_equal(first.codes, second.codes) and first.image.tobytes() == second.image.tobytes()


class TestImagine:
    def test_pictures_hold_what_their_codes_say(self, ofa: OFA) -> None:
        found = ofa.imagine(TEXT, count=3, seed=1)
        assert len(found) == 3
        for one in found:
            assert one.codes.shape == (SIDE, SIDE)
            assert one.image.size == (SIDE * 8, SIDE * 8)
            assert len(one.token_scores) == SIDE**2
            assert ofa.decode_codes(one.codes).tobytes() == one.image.tobytes()

    def test_codes_are_drawn_as_by_the_plain_sampling(self, ofa: OFA) -> None:
        """The first picture of a seed is what :func:`generate` draws with a generator of this seed."""
        vocabulary = ofa.tokenizer.vocabulary
        (one,) = ofa.imagine(TEXT, count=1, seed=7)
        options = GenerationOptions(
            do_sample=True, image_codes=True, top_k=256, min_new_tokens=SIDE**2, max_new_tokens=SIDE**2
        )
        (source,) = image_sources(ofa.pipeline, [TEXT])
        rule = AllowedRange(vocabulary.code_start, vocabulary.code_end)
        generator = torch.Generator().manual_seed(7)
        ((due,),) = generate(ofa.model, torch.tensor([source]), None, options, constraints=[rule], generator=generator)
        assert [vocabulary.code_start + code for code in one.codes.flatten()] == due.tokens[:-1]
        torch.testing.assert_close(list(one.token_scores), due.token_scores[:-1])

    def test_a_seed_repeats_its_pictures_whatever_is_drawn_beside_them(self, ofa: OFA) -> None:
        together = ofa.imagine(TEXT, count=5, seed=3)
        in_parts = ofa.imagine(TEXT, count=5, seed=3, batch_size=2)
        assert all(map(same, together, in_parts))
        for one in together:
            assert same(one, *ofa.imagine(TEXT, count=1, seed=one.seed))

    def test_pictures_of_several_texts_are_their_own(self, ofa: OFA) -> None:
        first, second = ofa.imagine([TEXT, "a dog"], count=2, seed=3)
        assert all(map(same, first, ofa.imagine(TEXT, count=2, seed=3)))
        assert not any(same(one, other) for one in first for other in second)

    def test_without_a_seed_they_differ(self, ofa: OFA) -> None:
        assert not same(*ofa.imagine(TEXT, count=1), *ofa.imagine(TEXT, count=1))

    def test_the_best_stands_first(self, ofa: OFA) -> None:
        for rank in ("caption", "codes"):
            scores = [one.score for one in ofa.imagine(TEXT, count=4, seed=1, rank=rank)]
            assert scores == sorted(scores, reverse=True)
            assert len(set(scores)) == 4

    def test_a_scorer_of_one_s_own_ranks(self, ofa: OFA) -> None:
        def darkness(image: Image.Image, text: str) -> float:
            assert text == TEXT
            return -float(np.asarray(image).mean())

        found = ofa.imagine(TEXT, count=4, seed=1, rank=darkness)
        assert [one.score for one in found] == sorted((darkness(one.image, TEXT) for one in found), reverse=True)

    def test_the_caption_s_score_is_its_tokens_mean(self, ofa: OFA) -> None:
        (one,) = ofa.imagine(TEXT, count=1, seed=1)
        tokens = torch.tensor([ofa.pipeline.encode(" what does the image describe?")])
        ids = [*ofa.tokenizer.encode(f" {TEXT}"), 2]
        pixels = ofa.pipeline.transform.batch([one.image])
        with torch.inference_mode():
            logits = ofa.model(tokens, torch.tensor([[0, *ids[:-1]]]), pixels)
        due = logits[0].log_softmax(-1)[range(len(ids)), ids].mean()
        assert one.score == pytest.approx(float(due), abs=1e-5)

    def test_pictures_are_told_as_they_grow(self, ofa: OFA) -> None:
        heights: list[list[int]] = []
        found = ofa.imagine(
            TEXT, count=3, seed=1, batch_size=2, on_row=lambda so_far: heights.append([i.height for i in so_far])
        )
        rows = [8 * row for row in range(1, SIDE + 1)]
        assert heights == [[h, h] for h in rows] + [[h] for h in rows]
        assert len(found) == 3

    def test_lower_temperature_draws_what_is_more_probable(self, ofa: OFA) -> None:
        cold, warm = (
            np.mean([one.log_prob for one in ofa.imagine(TEXT, count=8, seed=1, temperature=t, top_k=0)])
            for t in (0.2, 1.0)
        )
        assert cold > warm

    def test_top_k_one_is_the_most_probable_code(self, ofa: OFA) -> None:
        first, second = ofa.imagine(TEXT, count=2, seed=1, top_k=1)
        assert np.array_equal(first.codes, second.codes)


class TestGuidance:
    def test_scores_are_what_two_whole_passes_give(self, ofa: OFA) -> None:
        """Each code is drawn of (1 - s) · log p without the text + s · log p with it.

        As without guidance, the four special tokens have their probability, and are ruled out behind the softmax.
        """
        guidance, vocabulary = 3.0, ofa.tokenizer.vocabulary
        (one,) = ofa.imagine(TEXT, count=1, seed=7, guidance=guidance, top_k=0)
        codes = torch.from_numpy(one.codes.reshape(1, -1)) + vocabulary.code_start
        prefix = torch.cat([torch.zeros(1, 1, dtype=torch.long), codes[:, :-1]], dim=1)
        allowed = [*range(4), *range(vocabulary.code_start, vocabulary.code_end)]
        (source,) = image_sources(ofa.pipeline, [TEXT])
        without = ofa.pipeline.encode(" what is the complete image? caption: ")
        assert len(without) < len(source)
        with torch.inference_mode():
            given, alone = (
                ofa.model(torch.tensor([ids]), prefix, code_mask=torch.tensor([True]))[..., allowed].log_softmax(-1)
                for ids in (source, without)
            )
        due = (alone + guidance * (given - alone)).log_softmax(-1)
        due = due.gather(-1, codes[..., None] - vocabulary.code_start + 4).flatten()
        torch.testing.assert_close(torch.tensor(one.token_scores), due, atol=1e-4, rtol=0)

    def test_of_one_it_changes_nothing_and_of_none_it_forgets_the_text(self, ofa: OFA) -> None:
        (plain,), (one,) = (ofa.imagine(TEXT, count=1, seed=7, **more) for more in ({}, {"guidance": 1}))
        assert same(plain, one)
        first, second = ofa.imagine([TEXT, "two blue dogs"], count=1, seed=7, guidance=1e-9, top_k=1)
        assert np.array_equal(first[0].codes, second[0].codes)

    def test_a_seed_repeats_its_pictures_whatever_is_drawn_beside_them(self, ofa: OFA) -> None:
        together = ofa.imagine(TEXT, count=3, seed=3, guidance=2, batch_size=2)
        for one in together:
            assert same(one, *ofa.imagine(TEXT, count=1, seed=one.seed, guidance=2))

    def test_a_model_may_have_its_own(self, ofa: OFA) -> None:
        task = ofa.config.task.model_copy(update={"name": "image_gen", "search": {"guidance": 4.0}})
        model = OFAModel(ofa.config.model_copy(update={"task": task})).eval()
        model.load_state_dict(ofa.model.state_dict())
        guided = OFA(model, ofa.tokenizer, vqgan=ofa.vqgan)
        expected, unguided = (ofa.imagine(TEXT, count=1, seed=7, guidance=s)[0] for s in (4, 1))
        assert same(*guided.imagine(TEXT, count=1, seed=7), expected)
        assert same(*guided.imagine(TEXT, count=1, seed=7, guidance=1), unguided)
        assert not same(expected, unguided)
        (filled,) = guided.infill(picture(1, 60, 90), (10, 5, 50, 45), seed=1)  # which has no text to be led by
        assert same(filled, *ofa.infill(picture(1, 60, 90), (10, 5, 50, 45), seed=1))

    def test_what_cannot_be_guided_is_refused(self, ofa: OFA) -> None:
        with pytest.raises(OFAError, match=r"guidance: .* greater than or equal to 0"):
            ofa.imagine(TEXT, guidance=-1)
        tokens = torch.tensor([[0, 5, 2]])
        for sampled in (True, False):
            options = GenerationOptions(guidance=2, do_sample=sampled, max_new_tokens=2)
            with pytest.raises(OFAError, match=r"^guidance is 2; it is for pictures that are drawn of a text$"):
                generate(ofa.model, tokens, None, options)


class TestInfill:
    def test_only_the_box_changes(self, ofa: OFA) -> None:
        image, box = picture(1, 60, 90), (10, 5, 50, 45)
        (found,) = ofa.infill(image, box, seed=1)
        before, after = np.asarray(image), np.asarray(found.image)
        assert after.shape == before.shape
        inside = np.zeros(before.shape[:2], dtype=bool)
        inside[5:45, 10:50] = True
        assert np.array_equal(before[~inside], after[~inside])
        assert not np.array_equal(before[inside], after[inside])

    def test_what_is_in_the_box_is_not_seen(self, ofa: OFA) -> None:
        image, box = picture(1, 60, 90), (10, 5, 50, 45)
        other = image.copy()
        other.paste((255, 0, 0), (10, 5, 50, 45))
        (first,), (second,) = (ofa.infill(one, box, seed=1) for one in (image, other))
        assert np.array_equal(first.codes, second.codes)

    def test_what_is_around_the_box_is_seen(self, ofa: OFA) -> None:
        image, box = picture(1, 60, 90), (30, 15, 60, 45)
        other = Image.new("RGB", image.size, (255, 0, 0))
        (first,), (second,) = (ofa.infill(one, box, seed=1) for one in (image, other))
        assert first.token_scores != second.token_scores

    def test_the_middle_is_completed_without_a_box(self, ofa: OFA) -> None:
        image = picture(1, 64, 64)
        (whole,), (boxed,) = (ofa.infill(image, box, seed=2) for box in (None, (16, 16, 48, 48)))
        assert same(whole, boxed)

    def test_several_completions_differ(self, ofa: OFA) -> None:
        first, second = ofa.infill(picture(1, 64, 64), count=2, seed=2)
        assert not same(first, second)


class TestCodes:
    def test_a_picture_becomes_codes_and_back(self, ofa: OFA) -> None:
        codes = ofa.encode_image(picture(1, 60, 90))
        assert codes.shape == (SIDE, SIDE)
        assert ofa.decode_codes(codes).size == (SIDE * 8, SIDE * 8)
        assert ofa.decode_codes(codes.flatten()).tobytes() == ofa.decode_codes(codes.tolist()).tobytes()
        assert ofa.encode_image(picture(1, 60, 90), side=64).shape == (8, 8)

    def test_a_list_of_pictures_becomes_a_list_of_codes(self, ofa: OFA) -> None:
        pictures = [picture(1), picture(2, 80, 50)]
        for codes, image in zip(ofa.encode_image(pictures), pictures, strict=True):
            assert np.array_equal(codes, ofa.encode_image(image))

    def test_noise_is_repeated_by_its_seed(self, ofa: OFA) -> None:
        first, again, other = (ofa.encode_image(picture(1), noise=seed) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_grid_need_not_be_square(self, ofa: OFA) -> None:
        assert ofa.decode_codes(np.zeros((2, 5), dtype=int)).size == (40, 16)

    @pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (31, 400), (64, 64)])
    def test_the_middle_square_is_the_shorter_side_s(self, width: int, height: int) -> None:
        image = Image.new("RGB", (width, height))
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        image.paste((255, 255, 255), (round(left), round(top), round(left) + short, round(top) + short))
        square = middle_square(image, 32)
        assert square.size == (32, 32)
        assert np.asarray(square).mean() > 250


class TestRefusals:
    def test_a_model_without_network(self, ofa: OFA) -> None:
        alone = OFA(ofa.model, ofa.tokenizer)
        with pytest.raises(OFAError, match="no network of image codes"):
            alone.imagine(TEXT)
        OFA(ofa.model, ofa.tokenizer)  # as it was

    def test_a_network_of_other_codes(self, ofa: OFA) -> None:
        other = OFA(ofa.model, ofa.tokenizer, vqgan=VQGAN(VQGANConfig(32, (1, 1), 1, (1,), 8, 8, 16)).eval())
        with pytest.raises(OFAError, match="the model has 32 image codes, the network that makes pictures of them 16"):
            other.imagine(TEXT)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"count": 0}, "count must be at least 1, not 0"),
            ({"seed": -1}, "seed must be a whole number"),
            ({"rank": "clip"}, "rank is 'clip'"),
            ({"top_p": 0.0}, "top_p"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
        ],
    )
    def test_options_that_cannot_be(self, ofa: OFA, options: dict[str, object], message: str) -> None:
        with pytest.raises(OFAError, match=message):
            ofa.imagine(TEXT, **options)  # type: ignore[call-overload]

    def test_an_empty_text(self, ofa: OFA) -> None:
        with pytest.raises(OFAError, match="text to imagine is empty"):
            ofa.imagine(" ")

    @pytest.mark.parametrize("box", [(0, 0, 200, 10), (5, 5, 5, 5), (0.1, 0.1, 0.5, 0.5), "no"])
    def test_a_box_that_is_none(self, ofa: OFA, box: object) -> None:
        with pytest.raises(OFAError, match="box"):
            ofa.infill(picture(1, 60, 90), box)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("codes", "message"),
        [
            ([0.5], "whole numbers"),
            ([1, 2, 3], "3 codes in one list are no square"),
            ([], "whole numbers"),
            ([[[1]]], r"\[rows, columns\], not \[1, 1, 1\]"),
            ([[CODES]], f"code {CODES} is not one of the {CODES}"),
        ],
    )
    def test_codes_that_are_none(self, ofa: OFA, codes: object, message: str) -> None:
        with pytest.raises(OFAError, match=message):
            ofa.decode_codes(codes)

    def test_a_side_that_codes_do_not_fill(self, ofa: OFA) -> None:
        with pytest.raises(OFAError, match="a side of 60 pixels is not a multiple of 8"):
            ofa.encode_image(picture(1), side=60)
