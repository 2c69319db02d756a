"""The BART beside the model has its dimensions, answers as it is asked, and is timed in turns with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("ctranslate2", reason="CTranslate2 is an extra of developers")

from benchmarks import speed
from benchmarks.against_ct2 import SEARCHES, TYPES
from benchmarks.ctranslate2_bart import Bart, sources_like
from benchmarks.workloads import CAPTION, make_model
from ofa_core import OFAConfig
from ofa_core.text.vocabulary import BOS, EOS, PAD

SMALL = {"vocab_size": 5000, "encoder_layers": 2, "decoder_layers": 1, "stem_depths": (1, 1, 1)}


def matrices(modules: Iterable[nn.Module]) -> int:
    """Bytes of the weights of all linear layers in ``modules``."""
    linear = [one for module in modules for one in module.modules() if isinstance(one, nn.Linear)]
    return sum(one.weight.nbytes for one in linear)


def test_it_has_the_dimensions_and_answers_as_asked(tmp_path: Path) -> None:
    model = make_model("tiny", **SMALL)
    config: OFAConfig = model.config
    bart = Bart(config, tmp_path, "float32", 1)
    sources = [[5] * 30, [7] * 20]
    assert bart.encode(sources) == (2, 30, config.embed_dim)
    found = bart.generate(sources, CAPTION)
    assert [[len(words) for words in beams] for beams in found] == [[CAPTION.max_new_tokens] * CAPTION.num_beams] * 2
    words_and_positions = 4 * config.embed_dim * (config.vocab_size + 2 * 2048)
    expected = matrices([*model.encoder.layers, *model.decoder.layers]) + words_and_positions
    written = (tmp_path / "whole" / "model.bin").stat().st_size
    assert expected <= written < 1.02 * expected  # biases, norms and names


def test_sources_are_as_long_as_a_picture_and_its_text() -> None:
    tokens = torch.tensor([[BOS, 9, 9, EOS], [BOS, EOS, PAD, PAD]])
    sources = sources_like(tokens, 16, 5000)
    assert [len(source) for source in sources] == [20, 18]
    assert all(4 <= index < 5000 for source in sources for index in source)


def test_the_command_times_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "make_model", lambda size, **changes: make_model(size, **(SMALL | changes)))
    out = tmp_path / "speed.json"
    options = ["--sizes", "tiny", "--image-size", "64", "--batches", "2", "--repeats", "1", "--seconds", "0"]
    assert speed.main([*options, "--workloads", "turn", "--against-ct2", "--out", str(out)]) == 0
    pairs = json.loads(out.read_text())["against_ct2"]
    assert [(pair["dtype"], pair["part"]) for pair in pairs] == [
        (name, part) for name in TYPES for part in ("encoder", *SEARCHES)
    ]
    for pair in pairs:
        assert pair["of_ct2"] == pytest.approx(pair["ct2_cpu_seconds"] / pair["cpu_seconds"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + 1 + len(pairs)


def test_without_it_one_line_tells_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        speed.main(["--against-ct2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("needs CTranslate2: pip install 'ofa_core[dev]'")
