"""Two processes learn what one learns from twice the batch, as copies (DDP) and in parts (FSDP2)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import one_job_at_a_time
from safetensors.torch import load_file
from training.made import settings

from ofa_core import OFAError
from ofa_core.training import parallel
from ofa_core.training.parallel import can_shard
from ofa_core.training.run import make_trainer, train
from ofa_core.training.state import read_state

TESTS = Path(__file__).parent.parent
#: Trains one run after the other, in each of the processes.
SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[3])
from pathlib import Path
from training.made import settings
from ofa_core.training.run import make_trainer
from ofa_core.utils.distributed import process_group
with process_group() as process:
    for name, changes in json.loads(sys.argv[2]).items():
        make_trainer(settings(Path(sys.argv[1]) / name, **changes), process).run()
"""


def still(begun: Path, **changes: Any) -> dict[str, Any]:
    """Settings without chance: no dropout, and BatchNorm as it stands; an adapter is one of the model ``begun``."""
    made = settings(Path("unused")).new_model
    assert made is not None
    content = made.model_dump()
    content["config"]["dropout"] = 0.0
    fresh = {"new_model": content} if "lora" not in changes else {"new_model": None, "model": str(begun / "last")}
    return fresh | {"freeze_batch_norm": True, "steps": 4} | changes


#: Changes to the settings of runs that two processes are compared with one in.
LORA = {"lora": {"rank": 2}}
COMPARED: dict[str, dict[str, Any]] = {
    "copies": {},
    "accumulated": {"accumulate": 2},
    "sharded": {"shard": True},
    "adapted": LORA,
    "adapted and sharded": LORA | {"shard": True},
}
#: Longer runs of the original's recipe, with all that it changes.
ORIGINAL: dict[str, Any] = {"recipe": "ofa", "steps": 40, "save_every": 40, "ema": 0.9, "log_every": 40}
COMPARED["original"] = ORIGINAL
# Convolutions of one picture and of two round differently, and a ReLU at its edge tells them apart: the stem stays.
COMPARED["original sharded"] = ORIGINAL | {"steps": 8, "ema": None, "shard": True, "freeze": ["stem"]}
DROPOUT = {"steps": 4, "batch_size": 1}


@pytest.fixture(scope="module")
def runs_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of runs that two processes made."""
    out = tmp_path_factory.mktemp("two")
    begun = out / "begun"
    train(settings(begun, **still(begun, steps=1)))
    runs = {
        name: still(begun, batch_size=1, **changes)
        for name, changes in COMPARED.items()
        if can_shard() or "shard" not in changes
    }
    runs["dropout"] = DROPOUT | {"save_every": 2}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    arguments = [SCRIPT, str(out), json.dumps(runs), json.dumps([str(TESTS), str(TESTS / "golden")])]
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    with one_job_at_a_time():
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", *arguments],
                env=os.environ | job | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        for process in processes:
            errors = process.communicate(timeout=300)[1]
            assert process.returncode == 0, errors[-2000:]
    return out


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        # Adam divides by the size of gradients, so where those are all but zero the sums' rounding shows.
        assert torch.allclose(first[name].float(), second[name].float(), atol=2e-4), name


@pytest.mark.parametrize("name", COMPARED)
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, runs_of_two: Path, name: str) -> None:
    if COMPARED[name].get("shard") and not can_shard():
        pytest.skip("this torch does not shard")
    alone = {option: value for option, value in COMPARED[name].items() if option != "shard"}
    train(settings(tmp_path / name, **still(runs_of_two / "begun", batch_size=2, **alone)))
    runs = tmp_path / name, runs_of_two / name
    assert_close(*(load_file(run / "last" / "model.safetensors") for run in runs))
    if "lora" in alone:
        assert_close(*(load_file(run / "last-adapter" / "adapter_model.safetensors") for run in runs))
    one, two = ((run / "log.jsonl").read_text().splitlines() for run in runs)
    assert len(one) == len(two) == (1 if "log_every" in COMPARED[name] else 4)


def test_a_run_of_two_goes_on_with_two_alone(tmp_path: Path, runs_of_two: Path) -> None:
    groups, facts = read_state(runs_of_two / "dropout" / "state.safetensors")
    assert facts["step"] == 4
    assert set(groups["random"]) == {"0", "1"}
    assert not torch.equal(groups["random"]["0"], groups["random"]["1"]), "each has dropout of its own"
    with pytest.raises(OFAError, match="the run was made by 2 processes and cannot go on with 1"):
        make_trainer(settings(runs_of_two / "dropout", **DROPOUT)).run()


def test_sharding_needs_several_processes(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="shard needs several processes: torchrun"):
        make_trainer(settings(tmp_path, shard=True))


def test_an_old_torch_does_not_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    with pytest.raises(OFAError, match=r"shard needs torch 2\.8 or newer, this is 2\.7\.1"):
        parallel._shard(torch.nn.Linear(1, 1))
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert can_shard()
