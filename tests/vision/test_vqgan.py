"""Pictures from image codes: equal to the original's tokenizer, and what is refused."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import synth
import torch
from torch import Tensor, nn

from ofa_core.errors import CheckpointError, OFAError
from ofa_core.vision.vqgan import VQGAN, VQGANConfig, decode_tiled, needed_entries, to_pixels
from tests.reference import golden, golden_arrays

#: Largest difference from the reference before rounding, and the share of bytes that may differ by one.
TOLERANCE, ROUNDED_OTHERWISE = 5e-5, 1e-3
SMALL = VQGANConfig(
    channels=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), latent_channels=8, code_dim=8, num_codes=16
)
CODES = torch.arange(24).reshape(1, 4, 6) % 16


@pytest.fixture
def small() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(SMALL).eval().requires_grad_(False)


@cache
def reference() -> Any:
    return golden("vqgan.json")


def reference_state(*, whole: bool = False) -> dict[str, Tensor]:
    shapes = reference()["shapes"] | (reference()["not_needed"] if whole else {})
    return {
        name: torch.from_numpy(value.copy())
        for name, value in synth.synth_state({n: tuple(s) for n, s in shapes.items()}, reference()["salt"]).items()
    }


@cache
def original() -> VQGAN:
    state = reference_state()
    vqgan = VQGAN(VQGANConfig.from_state(state))
    vqgan.load_state_dict(state)
    return vqgan.eval().requires_grad_(False)


@pytest.mark.reference
class TestOriginal:
    def test_the_dimensions_are_read_off_the_tensors(self) -> None:
        config = VQGANConfig.from_state(reference_state())
        given = reference()["ddconfig"]
        assert config.channels == given["ch"]
        assert list(config.multipliers) == given["ch_mult"]
        assert config.blocks == given["num_res_blocks"]
        sides = [given["resolution"] >> level for level in config.attention_levels]
        assert sides == given["attn_resolutions"]
        assert (config.latent_channels, config.code_dim) == (given["z_channels"], reference()["embed_dim"])
        assert (config.num_codes, config.encoder) == (reference()["n_embed"], False)

    def test_the_entries_are_the_original_s(self) -> None:
        shapes = reference()["shapes"]
        assert {name: list(t.shape) for name, t in original().state_dict().items()} == shapes
        with torch.device("meta"):
            whole = VQGAN(VQGANConfig()).state_dict()
        assert {name: list(t.shape) for name, t in whole.items()} == shapes | {
            name: shape for name, shape in reference()["not_needed"].items() if not name.startswith("loss.")
        }

    @pytest.mark.parametrize("case", [case["name"] for case in golden("vqgan.json")["cases"]])
    def test_pictures_equal_the_original_s(self, case: str) -> None:
        arrays = golden_arrays("vqgan.npz")
        facts = next(some for some in reference()["cases"] if some["name"] == case)
        norms: dict[str, list[float]] = {}
        hooks = [
            module.register_forward_hook(_recorder(norms, name.removeprefix("decoder.")))
            for name, module in original().named_modules()
            if name.removeprefix("decoder.") in facts["norms"]
        ]
        decoded = original().decode(arrays[f"{case}/codes"])
        for hook in hooks:
            hook.remove()
        for name, expected in facts["norms"].items():
            torch.testing.assert_close(torch.tensor(norms[name]), torch.tensor(expected), rtol=1e-4, atol=0, msg=name)
        stride = facts["output_stride"]
        found, due = decoded[..., ::stride, ::stride], arrays[f"{case}/output"]
        torch.testing.assert_close(found, due, rtol=0, atol=TOLERANCE)
        pixels, due = to_pixels(decoded).int(), arrays[f"{case}/pixels"].int()
        assert (pixels - due).abs().max() <= 1
        assert (pixels != due).float().mean() <= ROUNDED_OTHERWISE

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_finite_and_near(self, dtype: torch.dtype) -> None:
        arrays = golden_arrays("vqgan.npz")
        state = {name: tensor.to(dtype) for name, tensor in reference_state().items()}
        vqgan = VQGAN(VQGANConfig.from_state(state)).to(dtype)
        vqgan.load_state_dict(state)
        decoded = vqgan.eval().requires_grad_(False).decode(arrays["small/codes"]).float()
        assert decoded.isfinite().all()
        assert (decoded - arrays["small/output"]).abs().mean() < 0.03


def _recorder(norms: dict[str, list[float]], name: str) -> Any:
    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        norms[name] = output.double().flatten(1).norm(dim=1).tolist()

    return record


class TestCodes:
    def test_codes_of_a_picture_are_the_best(self, small: VQGAN) -> None:
        pixels = torch.rand(2, 3, 8, 12) * 2 - 1
        scores = small.code_scores(pixels)
        assert scores.shape == (2, 16, 4, 6)
        assert torch.equal(small.encode(pixels), scores.argmax(1))

    def test_noise_draws_codes_in_proportion(self, small: VQGAN) -> None:
        pixels = torch.rand(1, 3, 4, 4) * 2 - 1
        probabilities = small.code_scores(pixels)[0, :, 0, 0].softmax(0)
        noise = torch.Generator().manual_seed(1)
        drawn = torch.cat([small.encode(pixels.expand(500, -1, -1, -1), noise).flatten() for _ in range(20)])
        shares = torch.bincount(drawn, minlength=16) / len(drawn)
        torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.02)

    def test_noise_is_repeated_by_its_seed(self, small: VQGAN) -> None:
        pixels = torch.rand(1, 3, 16, 16) * 2 - 1
        first, again = (small.encode(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, again)

    def test_an_untrained_code_is_answered_by_its_own_picture(self) -> None:
        """A network learns to say a picture's codes: what the encoder and the code book stand for."""
        torch.manual_seed(0)
        vqgan = VQGAN(SMALL)
        pixels = torch.tensor([-1.0, 1.0]).repeat_interleave(8).expand(1, 3, 16, 16).contiguous()
        optimizer = torch.optim.Adam(vqgan.parameters(), 3e-3)
        for _ in range(60):
            codes = nn.functional.gumbel_softmax(vqgan.code_scores(pixels), hard=True, dim=1)
            latents = torch.einsum("bkhw,kc->bchw", codes, vqgan.quantize.embed.weight)
            loss = (vqgan.decoder(vqgan.post_quant_conv(latents)) - pixels).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        vqgan.eval()
        assert (vqgan.decode(vqgan.encode(pixels)) - pixels).abs().mean() < 0.25


class Flat(VQGAN):
    """A network whose codes are colours."""

    def decode(self, codes: Tensor) -> Tensor:
        return codes[:, None].float().repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)


class TestTiles:
    def test_one_tile_is_the_whole(self, small: VQGAN) -> None:
        torch.testing.assert_close(decode_tiled(small, CODES, 8), small.decode(CODES))

    @pytest.mark.parametrize(("rows", "columns", "tile", "overlap"), [(11, 14, 6, 2), (7, 30, 5, None), (9, 9, 4, 0)])
    def test_tiles_cover_all_and_their_weights_sum_to_one(
        self, rows: int, columns: int, tile: int, overlap: int | None
    ) -> None:
        """Where no pixel depends on its neighbours, tiles give the whole."""
        codes = torch.randint(0, 16, (2, rows, columns), generator=torch.Generator().manual_seed(2))
        vqgan = Flat(SMALL)
        torch.testing.assert_close(decode_tiled(vqgan, codes, tile, overlap), vqgan.decode(codes))

    def test_an_overlap_is_smaller_than_its_tile(self, small: VQGAN) -> None:
        with pytest.raises(OFAError, match="tiles of 4 codes cannot overlap by 4"):
            decode_tiled(small, CODES, 4, overlap=4)


class TestRefusals:
    @pytest.mark.parametrize("odd", [-1, 16])
    def test_a_code_beyond_the_book(self, small: VQGAN, odd: int) -> None:
        with pytest.raises(OFAError, match=f"code {odd} is not one of the 16"):
            small.decode(torch.tensor([[[0, odd]]]))

    def test_codes_that_are_no_grid(self, small: VQGAN) -> None:
        with pytest.raises(OFAError, match=r"shape \[4\] instead of"):
            small.decode(torch.zeros(4, dtype=torch.long))

    def test_a_side_that_codes_do_not_fill(self, small: VQGAN) -> None:
        with pytest.raises(OFAError, match="pixels are 9 × 8; sides are multiples of 2"):
            small.encode(torch.zeros(1, 3, 8, 9))

    def test_a_network_without_encoder(self) -> None:
        state = {n: t for n, t in VQGAN(SMALL).state_dict().items() if not n.startswith(("encoder", "quant_conv"))}
        del state["quantize.proj.weight"], state["quantize.proj.bias"]
        vqgan = VQGAN(VQGANConfig.from_state(state))
        with pytest.raises(OFAError, match="has no encoder"):
            vqgan.encode(torch.zeros(1, 3, 8, 8))

    def test_what_a_training_checkpoint_holds_besides_is_left(self, small: VQGAN) -> None:
        state = small.state_dict()
        assert list(needed_entries(state | {"loss.discriminator.weight": torch.zeros(1)})) == list(state)

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("decoder.conv_out.weight", "decoder.conv_out.weight is missing"),
            (
                "decoder.mid.attn_1.q.bias",
                "1 entries of the image codes network are missing, decoder.mid.attn_1.q.bias",
            ),
            ("encoder.conv_in.bias", "missing, encoder.conv_in.bias first"),
        ],
    )
    def test_a_missing_entry(self, small: VQGAN, entry: str, message: str) -> None:
        state = {name: tensor for name, tensor in small.state_dict().items() if name != entry}
        with pytest.raises(CheckpointError, match=message):
            needed_entries(state)

    def test_a_wrong_shape(self, small: VQGAN) -> None:
        state = small.state_dict() | {"post_quant_conv.bias": torch.zeros(9)}
        with pytest.raises(CheckpointError, match=r"post_quant_conv.bias is \[9\] instead of \[8\]"):
            needed_entries(state)
