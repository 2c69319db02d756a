"""Two processes learn what one learns from twice the batch, as copies (DDP) and in parts (FSDP2)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import fsdp
from training.made import settings

from ofa_core import OFAError
from ofa_core.training.run import make_trainer, train
from ofa_core.training.state import read_state

TESTS = Path(__file__).parent.parent
SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[3])
from pathlib import Path
from training.made import settings
from ofa_core.training.run import train
train(settings(Path(sys.argv[1]), **json.loads(sys.argv[2])))
"""


def still(**changes: Any) -> dict[str, Any]:
    """Settings without chance: no dropout, and BatchNorm as it stands."""
    made = settings(Path("unused")).new_model
    assert made is not None
    content = made.model_dump()
    content["config"]["dropout"] = 0.0
    return {"new_model": content, "freeze_batch_norm": True, "steps": 4} | changes


def train_in_two(out: Path, script: Path, **changes: Any) -> None:
    script.write_text(SCRIPT)
    arguments = [str(out), json.dumps(changes), json.dumps([str(TESTS), str(TESTS / "golden")])]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        # Adam divides by the size of gradients, so where those are all but zero the sums' rounding shows.
        assert torch.allclose(first[name].float(), second[name].float(), atol=2e-4), name


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"shard": True}], ids=["copies", "accumulated", "sharded"])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes.get("shard") and not hasattr(fsdp, "fully_shard"):
        pytest.skip("this torch has no fully_shard")
    train_in_two(tmp_path / "two", tmp_path / "two.py", **still(batch_size=1, **changes))
    alone = {name: value for name, value in changes.items() if name != "shard"}
    train(settings(tmp_path / "one", **still(batch_size=2, **alone)))
    assert_close(*(load_file(tmp_path / run / "last" / "model.safetensors") for run in ("one", "two")))
    one, two = ((tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("one", "two"))
    assert len(one) == len(two) == 4


def test_a_run_of_two_goes_on_with_two(tmp_path: Path) -> None:
    dropout = {"steps": 4, "batch_size": 1}
    train_in_two(tmp_path / "whole", tmp_path / "x.py", **dropout)
    train_in_two(tmp_path / "cut", tmp_path / "x.py", **dropout, save_every=2)
    groups, facts = read_state(tmp_path / "cut" / "state.safetensors")
    assert facts["step"] == 4
    assert set(groups["random"]) == {"0", "1"}
    assert not torch.equal(groups["random"]["0"], groups["random"]["1"]), "each has dropout of its own"
    with pytest.raises(OFAError, match="the run was made by 2 processes and cannot go on with 1"):
        make_trainer(settings(tmp_path / "cut", **dropout)).run()


def test_sharding_needs_several_processes(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="shard needs several processes: torchrun"):
        make_trainer(settings(tmp_path, shard=True))
