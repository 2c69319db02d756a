"""Processes share out batches, and what two of them write together is what one writes alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.runs import only, rows_in, save_lively, write_data
from jobs import one_job_at_a_time

from ofa_core.bench.results import iter_rows
from ofa_core.bench.summary import read_summary
from ofa_core.cli.main import main
from ofa_core.utils.distributed import Process, process_group

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_batches_go_round() -> None:
    shares = [[batch for batch in range(8) if Process(rank, 3).owns(batch)] for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert all(Process().owns(batch) for batch in range(8))


def test_each_process_has_its_own_gpu() -> None:
    assert Process(5, 8, 1).device("cuda") == "cuda:1"
    assert Process(5, 8, 1).device("cuda:3") == "cuda:3"
    assert Process(5, 8, 1).device("cpu") == "cpu"
    assert Process().device("cuda") == "cuda"


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group() as process:
        assert process == Process(0, 1, 0)
        assert process.is_rank0
        assert process.broadcast_from_rank0(lambda: "häll\n") == "häll\n"
        process.barrier()


def test_two_processes_write_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_data(tmp_path, 5)
    model = save_lively(tmp_path / "model")
    (tmp_path / "images" / "1.png").unlink()  # of 2 of the 5
    tasks = ("guesswhat_oracle", "invig_grounding_end2end")
    arguments = ["bench", *tasks, "--model", str(model), "--comment", "zwölf", "--batch-size", "2", "--skip-bad"]
    arguments += ["--data", f"guesswhat={paths['guesswhat']}", f"invig={paths['invig']}", "--quiet"]
    arguments += ["--images", str(tmp_path / "images"), "--num-beams", "2", "--max-new-tokens", "3", "--out"]
    with one_job_at_a_time():
        together = subprocess.run(
            [sys.executable, *TORCHRUN, "-m", "ofa_core", *arguments, str(tmp_path / "two")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert together.returncode == 0, together.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*arguments, str(tmp_path / "one")]) == 0
    torch.set_num_threads(threads)
    for task, samples, bad in (("guesswhat_oracle", 9, 6), ("invig_grounding_end2end", 3, 2)):
        two, one = (only(tmp_path / name, f"{task}/*/*.jsonl") for name in ("two", "one"))
        assert rows_in(two) == rows_in(one)
        same = {"started": ""}
        assert iter_rows(two)[0].model_copy(update=same) == iter_rows(one)[0].model_copy(update=same)
        for path in (two, one):
            summary = read_summary(path.with_suffix(".json"))
            assert summary is not None
            assert (summary.samples, summary.bad_rows) == (samples, bad)
        assert together.stdout.count(f"{two}\n") == 1  # the first process alone speaks
    found = [re.findall(r"(?m)^  .*$", printed) for printed in (together.stdout, capsys.readouterr().out)]
    assert found[0] == found[1] != []
