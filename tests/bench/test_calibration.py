from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from reference import lively_ofa, picture

import ofa_core
from ofa_core import OFAError
from ofa_core.bench.calibration import Outcomes, fit, outcomes, quality, store
from ofa_core.checkpoint.digests import changed_files
from ofa_core.cli.main import main
from ofa_core.config import Calibration
from ofa_core.demo.files import write_dataset
from ofa_core.heads.confidence import along, confidence_of


def made(count: int = 200) -> Outcomes:
    """Outcomes whose boxes are right where the expected IoU is above 0.4, and which are there above 0.2."""
    expected = [at / count for at in range(count)]
    return Outcomes(expected, [0.8 if v > 0.4 else 0.1 for v in expected], [v > 0.2 for v in expected], expected)


def test_a_calibration_is_what_came_true() -> None:
    fitted = fit(made())
    assert confidence_of(0.9, fitted) == 1
    assert confidence_of(0.1, fitted) == 0
    assert along(fitted.present, 0.9) == 1
    assert along(fitted.present, 0.05) == 0
    before, after = quality(made(), None), quality(made(), fitted)
    assert before.error > 0.2
    assert after.error < 0.03
    assert before.presence_auroc == 1
    there = [value for value in made().expected if value > 0.2]
    assert sum(along(fitted.present, value) < fitted.least_present for value in there) <= 0.05 * len(there)


def test_presence_needs_both_kinds() -> None:
    whole = made()
    assert fit(Outcomes(whole.expected, whole.overlaps, [True] * 200, whole.evidence)).present == ()
    with pytest.raises(OFAError, match=r"^10 samples are too few for a calibration; at least 50 are$"):
        fit(Outcomes(whole.expected[:10], whole.overlaps[:10], whole.there[:10], whole.evidence[:10]))


def test_presence_is_fitted_to_what_the_model_tells_where_it_gives_no_box() -> None:
    """Of samples without a box those with more mass are there more often, which no expected IoU of 0 could tell."""
    evidence = [at / 200 for at in range(200)]
    there = [value > 0.3 for value in evidence]
    fitted = fit(Outcomes([0.0] * 200, [0.0] * 200, there, evidence))
    assert along(fitted.present, 0.25) < 0.1
    assert along(fitted.present, 0.45) > 0.9


def test_outcomes_do_not_depend_on_an_earlier_calibration() -> None:
    ofa = lively_ofa()
    asked = ([picture(1), picture(2)], ["the cat", "the dog"], [[(1.0, 1.0, 20.0, 20.0)], []])
    before = outcomes(ofa.pipeline, *asked)
    task = ofa.model.config.task.model_copy(
        update={"calibration": Calibration(overlap=((0.0, 0.5),), present=((0.0, 0.0),), least_present=1.0)}
    )
    ofa.model.config = ofa.model.config.model_copy(update={"task": task})
    assert outcomes(ofa.pipeline, *asked) == before
    assert before.there == [True, False]
    assert all(0 < one <= 1 for one in before.evidence)
    assert before.overlaps[1] == 0


def test_it_is_stored_with_its_digest(small_directory: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(small_directory, directory)
    calibration = Calibration(overlap=((0.1, 0.2), (0.9, 1.0)))
    store(directory, calibration)
    assert changed_files(directory) == []
    assert ofa_core.load(directory).model.config.task.calibration == calibration
    store(directory, Calibration())
    assert ofa_core.load(directory).model.config.task.calibration == Calibration()


def test_the_command_fits_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "model"
    shutil.copytree(ofa_core.api.model_directory("demo"), directory)
    write_dataset(tmp_path / "data", 60)
    rows = str(tmp_path / "data" / "phrases.tsv")
    assert main(["calibrate", "--model", str(directory), "--data", rows]) == 0
    told = capsys.readouterr().out
    assert "60 rows; written to" in told
    assert "calibration error 0." in told
    stored = ofa_core.load(directory).model.config.task.calibration
    assert stored is not None
    assert stored.overlap
    assert not stored.present
    assert main(["calibrate", "--model", str(directory), "--data", rows, "--limit", "5"]) == 2
    assert "5 samples are too few" in capsys.readouterr().err
    assert ofa_core.load(directory).model.config.task.calibration == stored
