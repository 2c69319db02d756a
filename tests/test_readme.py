"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reference import ROOT, script

from checkpoints_convert import convert
from ofa_core.text import small_vocabulary_dir


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    demo = script("demo")
    (tmp_path / "demo_output").mkdir()
    monkeypatch.chdir(tmp_path)
    demo.write_checkpoint(Path("demo_output/ofa.pt"))
    convert("demo_output/ofa.pt", "demo_output/ofa", bpe_dir=small_vocabulary_dir())
    for name in ("picture.png", "result.png"):
        demo.draw_picture().save(Path("demo_output") / name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(capsys.readouterr().out.splitlines()) == 4
