from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference import CHECKPOINTS, TOLERANCE
from torch import Tensor

from checkpoints_convert import read_checkpoint
from ofa_core.model.position_bias import (
    AbsoluteBias,
    RelativeBias,
    code_position_ids,
    image_buckets,
    num_image_buckets,
    num_token_buckets,
    patch_position_ids,
    token_buckets,
)

#: Patch position ids at the edges of the 42 × 42 grid.
EDGE_IDS = (0, 1, 2, 41, 42, 43, 84, 85, 882, 1024, 1723, 1764)


@pytest.fixture(scope="module", params=["refcoco_cfg", "vqa_namespace"])
def buffers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tensor]]:
    """The position buffers that the original implementation computed and stored in a training checkpoint."""
    packed = CHECKPOINTS / f"{request.param}.pt.gz"
    if not packed.is_file():
        pytest.skip(f"the genuine checkpoints are not part of the repository: {packed} does not exist")
    path: Path = tmp_path_factory.mktemp("genuine") / "checkpoint.pt"
    with gzip.open(packed) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    state = read_checkpoint(path).content["model"]
    yield {name: tensor for name, tensor in state.items() if name.endswith(("_rp_bucket", "image_position_idx"))}
    path.unlink()


def slow_token_bucket(distance: int, bucket_size: int, max_positions: int) -> int:
    """OFA.md's formula for one distance i - j."""
    middle = bucket_size // 2
    if abs(distance) > middle:
        wide = math.ceil(math.log(abs(distance) / middle) / math.log((max_positions - 1) / middle) * (middle - 1))
        distance = int(math.copysign(wide + middle, distance))
    return distance + bucket_size - 1


def slow_image_bucket(query: int, key: int, bucket_size: int) -> int:
    """OFA.md's formula for one pair of position ids."""
    span = 2 * bucket_size - 1
    special = {(True, False): span**2, (False, True): span**2 + 1, (True, True): span**2 + 2}
    if not (query and key):
        return special[query == 0, key == 0]
    (row_q, column_q), (row_k, column_k) = divmod(query - 1, bucket_size), divmod(key - 1, bucket_size)
    return (row_q - row_k + bucket_size - 1) * span + column_q - column_k + bucket_size - 1


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_token_buckets_equal_the_stored_ones(buffers: dict[str, Tensor], stack: str) -> None:
    at = torch.arange(1024)
    assert torch.equal(token_buckets(at, at), buffers[f"{stack}.token_rp_bucket"])


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_image_buckets_equal_the_stored_ones(buffers: dict[str, Tensor], stack: str) -> None:
    ids = torch.arange(42 * 42 + 1)
    assert torch.equal(image_buckets(ids, ids), buffers[f"{stack}.image_rp_bucket"])


def test_code_position_ids_equal_the_stored_ones(buffers: dict[str, Tensor]) -> None:
    stored = buffers["decoder.image_position_idx"]
    assert torch.equal(code_position_ids(torch.arange(len(stored)), 128), stored)


@pytest.mark.parametrize(("bucket_size", "max_positions"), [(256, 1024), (256, 600), (64, 512), (16, 100)])
def test_token_buckets_follow_the_formula_at_every_distance(bucket_size: int, max_positions: int) -> None:
    distances = torch.arange(1 - max_positions, max_positions)
    expected = [slow_token_bucket(d, bucket_size, max_positions) for d in distances.tolist()]
    found = token_buckets(distances, torch.zeros(1, dtype=torch.long), bucket_size, max_positions)
    assert found[:, 0].tolist() == expected
    assert (min(expected), max(expected)) == (0, num_token_buckets(bucket_size) - 1)  # the table's first and last row


@pytest.mark.parametrize(
    ("query", "key", "bucket"),
    [
        (0, 0, 255),
        (5, 4, 256),  # the query's position minus the key's
        (4, 5, 254),
        (127, 0, 255 + 127),
        (128, 0, 255 + 128),
        (129, 0, 255 + 129),
        (130, 0, 255 + 129),  # the first bucket that two distances share
        (0, 128, 255 - 128),
        (1023, 0, 510),
        (0, 1023, 0),
    ],
)
def test_token_bucket_at_the_edges(query: int, key: int, bucket: int) -> None:
    assert token_buckets(torch.tensor([query]), torch.tensor([key])).tolist() == [[bucket]]


def test_buckets_of_a_few_queries_are_rows_of_the_whole_table() -> None:
    at = torch.arange(300)
    assert torch.equal(token_buckets(at[297:], at), token_buckets(at, at)[297:])
    assert torch.equal(image_buckets(at[297:], at), image_buckets(at, at)[297:])


@pytest.mark.parametrize(("bucket_size", "ids"), [(42, EDGE_IDS), (5, tuple(range(26))), (3, tuple(range(10)))])
def test_image_buckets_follow_the_formula(bucket_size: int, ids: tuple[int, ...]) -> None:
    found = image_buckets(torch.tensor(ids), torch.tensor(ids), bucket_size)
    assert found.tolist() == [[slow_image_bucket(query, key, bucket_size) for key in ids] for query in ids]
    assert found.max() == num_image_buckets(bucket_size) - 1


def test_tables_have_the_published_heights() -> None:
    assert (num_token_buckets(256), num_image_buckets(42)) == (511, 6892)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (3, 2), (4, 10), (42, 42)])
def test_patch_position_ids_count_rows_of_the_full_grid(grid: tuple[int, int]) -> None:
    expected = [row * 42 + column + 1 for row in range(grid[0]) for column in range(grid[1])]
    assert patch_position_ids(*grid).tolist() == expected


@pytest.mark.parametrize("code_image_size", [64, 128, 256])
def test_code_position_ids_are_a_window_between_first_and_last(code_image_size: int) -> None:
    side = code_image_size // 8
    window = [row * 42 + column + 1 for row in range(side) for column in range(side)]
    expected = [0, *window, *[1024] * 40]
    found = code_position_ids(torch.arange(len(expected)), code_image_size)
    assert found.tolist() == expected
    assert code_position_ids(torch.tensor([side + 1, 0]), code_image_size).tolist() == [43, 0]


def test_absolute_bias_is_the_scaled_product_of_two_projections() -> None:
    torch.manual_seed(0)
    module = AbsoluteBias(dim=12, heads=3, scale=0.3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)  # biases too, and values large enough to tell
    queries, keys = torch.randn(4, 12), torch.randn(6, 12)
    found = module(queries, module.keys(keys))
    assert found.shape == (1, 3, 4, 6)
    q = torch.einsum("qd,ed->qe", queries, module.query.weight) + module.query.bias
    k = torch.einsum("kd,ed->ke", keys, module.key.weight) + module.key.bias
    for head in range(3):
        of_head = slice(head * 4, head * 4 + 4)
        expected = torch.einsum("qe,ke->qk", q[:, of_head], k[:, of_head]) * 0.3
        torch.testing.assert_close(found[0, head], expected, atol=TOLERANCE[torch.float32], rtol=0)


@pytest.mark.parametrize("grad", [True, False])
def test_relative_bias_reads_the_layers_own_table(grad: bool) -> None:
    torch.manual_seed(0)
    module = RelativeBias(layers=3, buckets=7, heads=2)
    for table in module.parameters():
        torch.nn.init.normal_(table)
    buckets = torch.tensor([[0, 6, 3], [2, 2, 5]])
    for layer in range(3):
        with torch.set_grad_enabled(grad):
            found = module(layer, buckets)
        assert found.shape == (1, 2, 2, 3)
        assert found.requires_grad is grad
        for head in range(2):
            for query in range(2):
                for key in range(3):
                    assert found[0, head, query, key] == module.tables[layer].weight[buckets[query, key], head]
