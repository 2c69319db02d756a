from __future__ import annotations

import pytest
import torch
from reference import TOLERANCE
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from ofa_core.vision.resnet import ResNetStem


def randomized(module: nn.Module) -> nn.Module:
    """BatchNorm's statistics, gains and biases away from zero and one, and residual branches that do not explode."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.3, 0.6)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return module.eval().requires_grad_(False)


def torchvision_features(model: ResNet, images: Tensor) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer3(model.layer2(model.layer1(x)))


@pytest.mark.parametrize(("depths", "size"), [((1, 1, 1), (64, 64)), ((1, 2, 3), (32, 16)), ((2, 1, 2), (33, 47))])
def test_equals_torchvision_with_the_same_weights(depths: tuple[int, int, int], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = randomized(ResNet(Bottleneck, [*depths, 1]))
    assert isinstance(theirs, ResNet)
    state = {
        name.replace("layer1", "stages.0").replace("layer2", "stages.1").replace("layer3", "stages.2"): tensor
        for name, tensor in theirs.state_dict().items()
        if not name.startswith(("layer4", "fc"))
    }
    ours = ResNetStem(depths).eval().requires_grad_(False)
    ours.load_state_dict(state)  # strict: the same entries in the same shapes
    images = torch.randn(2, 3, *size)
    expected = torchvision_features(theirs, images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, atol=TOLERANCE[torch.float32], rtol=0)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((64, 64), (4, 4)),
        ((32, 48), (2, 3)),
        ((16, 16), (1, 1)),
        ((1, 1), (1, 1)),
        ((15, 17), (1, 2)),
        ((65, 63), (5, 4)),
        ((97, 33), (7, 3)),
        ((672, 16), (42, 1)),
    ],
)
def test_one_feature_for_16_pixels_rounded_up(size: tuple[int, int], grid: tuple[int, int]) -> None:
    stem = ResNetStem((1, 1, 1)).eval()
    with torch.no_grad():
        assert stem(torch.randn(1, 3, *size)).shape == (1, 1024, *grid)


@pytest.mark.parametrize("depths", [(2, 2, 2), (3, 4, 23), (3, 8, 36)])
def test_stages_have_their_blocks_and_only_the_first_changes_the_size(depths: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        stem = ResNetStem(depths)
    assert tuple(len(stage) for stage in stem.stages) == depths  # type: ignore[arg-type]
    for stage, stride in zip(stem.stages, (1, 2, 2), strict=True):
        first, *others = stage  # type: ignore[misc]
        assert first.conv2.stride == (stride, stride)  # v1.5: at the 3 × 3 convolution
        assert first.conv1.stride == (1, 1)
        assert isinstance(first.downsample, nn.Sequential)
        assert all(isinstance(block.downsample, nn.Identity) for block in others)


def test_drop_path_drops_residual_paths_in_training_where_asked() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 3, 16, 16)
    outputs = {}
    for rate in (0.0, 0.9):
        stem = ResNetStem((1, 1, 1), drop_path=rate)
        randomized(stem)
        for part in stem.modules():
            part.training = not isinstance(part, nn.BatchNorm2d)
        outputs[rate] = stem(images), stem(images)
        evaluated = stem.eval()
        assert torch.equal(evaluated(images), evaluated(images))
    assert torch.equal(*outputs[0.0])
    assert not torch.equal(*outputs[0.9])
