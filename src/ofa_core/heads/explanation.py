"""Explanations: the part of a picture that the decoder attends to while it says an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import OFAError
from ..model.attention import Attention
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..text.vocabulary import BOS, EOS
from .batching import in_order
from .grounding import SPEC, caption_sources, rules_for
from .listing import CORNERS
from .pipeline import Picture, Pipeline
from .showing import encoded

#: The colour of what is attended to, and how much of it covers the picture where that is most.
COLOUR, STRENGTH = (230, 30, 30), 0.65
#: Distances in patches to those whose attention counts in the map at a patch, and their weights (a Gaussian whose
#: deviation is one patch): what stands in one patch is seen by those around it, too.
REACH = 2
_BELL = torch.exp(-(torch.arange(-REACH, REACH + 1.0) ** 2) / 2)
KERNEL = torch.outer(_BELL, _BELL) / _BELL.sum() ** 2


@dataclass(frozen=True, eq=False)
class Explanation:
    """The places where the decoder looked for each token of an answer."""

    #: The picture, in RGB at its own size.
    image: Image.Image
    #: The tokens of the answer as text.
    tokens: tuple[str, ...]
    #: Attention to each patch for each token [T, rows, columns]; that of a token sums to at most 1, since the text that
    #: is read has the rest. With gradients: what of it made the answer more likely.
    patches: Tensor
    #: The first tokens, which tell what the answer is about: the four of the first box, each of which looks at an edge;
    #: all tokens of any other answer.
    decisive: int

    def map(self, token: int | None = None) -> Tensor:
        """Attention to each pixel of the picture [height, width], 1 where it is most.

        Args:
            token: the place of a token in the answer; None for the mean of the decisive ones.

        Returns:
            The map, bilinear between the middles of patches, each of which is mixed with its neighbours.

        Raises:
            OFAError: there is no such token.
        """
        if token is not None and not -len(self.tokens) <= token < len(self.tokens):
            raise OFAError(f"the answer has {len(self.tokens)} tokens, none at {token}")
        patches = self.patches[: self.decisive].mean(0) if token is None else self.patches[token]
        width, height = self.image.size
        smooth = F.conv2d(patches[None, None], KERNEL[None, None], padding=REACH)  # beyond the sides nothing is seen
        pixels = F.interpolate(smooth, (height, width), mode="bilinear", align_corners=False)[0, 0]
        return pixels / pixels.max().clamp(min=torch.finfo(pixels.dtype).tiny)

    def peak(self, token: int | None = None) -> tuple[float, float]:
        """The middle (x, y), in pixels, of the pixel that is attended to most; of several the mean."""
        pixels = self.map(token)
        rows, columns = (pixels >= pixels.max()).nonzero().float().mean(0).tolist()
        return columns + 0.5, rows + 0.5

    def draw(self, token: int | None = None) -> Image.Image:
        """The picture, covered with colour as much as it is attended to."""
        strength = (self.map(token) * 255 * STRENGTH).round().to(torch.uint8)
        mask = Image.fromarray(strength.numpy())
        return Image.composite(Image.new("RGB", self.image.size, COLOUR), self.image, mask)

    def _repr_png_(self) -> bytes:
        """The covered picture as a notebook shows it."""
        return encoded(self.draw(), "PNG")


def explain(
    pipeline: Pipeline,
    images: Sequence[Picture],
    texts: Sequence[str],
    answers: Sequence[str | None] | None = None,
    *,
    gradients: bool = False,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Explanation]:
    """The places where the decoder looks for the answer to each text; see :meth:`ofa_core.OFA.explain`."""
    pipeline = pipeline.for_task(SPEC)
    sources = caption_sources(pipeline, texts, prompt)
    targets = _targets(pipeline, answers or [None] * len(texts))
    pictures = pipeline.open(images)
    rules, options = rules_for(pipeline, pipeline.options(SPEC))
    unsaid = [place for place, target in enumerate(targets) if not target]
    asked = [pictures[i] for i in unsaid], [sources[i] for i in unsaid]
    found = pipeline.run(*asked, options, rules, batch_size=batch_size)
    for place, beams in zip(unsaid, found, strict=True):
        targets[place] = [token for token in beams[0].tokens if token != EOS] if beams else []
    explanations: list[tuple[list[int], list[Explanation]]] = []
    for places, batch in pipeline.batches(pictures, sources, 1):
        (place,) = places
        tokens, picture, features = targets[place], pictures[place], batch.images
        if not tokens or features is None:
            raise OFAError(f"the model gave no answer to {texts[place]!r} that could be explained")
        patches = _attention(pipeline.model, batch.tokens, features, tokens, gradients)
        words = tuple(pipeline.tokenizer.decode([token]) for token in tokens)
        is_box = all(pipeline.tokenizer.vocabulary.bin_of(token) is not None for token in tokens)
        decisive = min(CORNERS, len(tokens)) if is_box else len(tokens)
        explanations.append((places, [Explanation(picture.image, words, patches, decisive)]))
    return in_order(explanations)


def _targets(pipeline: Pipeline, answers: Sequence[str | None]) -> list[list[int]]:
    """The ids of answers, none where the model is to give its own."""
    for answer in answers:
        if answer is not None and (not isinstance(answer, str) or not answer.strip()):
            raise OFAError(f"the answer to explain is {answer!r}; it should be a text that is not empty, or None")
    return [[] if one is None else pipeline.tokenizer.encode(f" {one.strip()}", symbols=True) for one in answers]


def _attention(
    model: OFAModel, source: Tensor, features: ImageFeatures, tokens: Sequence[int], gradients: bool
) -> Tensor:
    """Attention to the patches [T, rows, columns] where each of T tokens is said, the mean of layers and heads."""
    target = torch.tensor([tokens], device=source.device)
    prefix = F.pad(target, (1, 0), value=BOS)[:, :-1]  # a token is said at the place before it
    features = ImageFeatures(features.patches.clone(), features.grid)  # which gradients may pass
    with torch.set_grad_enabled(gradients), _recorded(model, gradients) as layers:
        logits = model.decode(model.encode(source, features), prefix)
        if gradients:
            logits.float().log_softmax(-1).gather(-1, target[..., None]).sum().backward()
    rows, columns = features.grid
    parts = [(weights * weights.grad).clamp(min=0) if weights.grad is not None else weights for weights in layers]
    mean = torch.cat(parts).mean((0, 1))[:, : rows * columns]  # [layers, H, T, S] to [T, P]
    return mean.detach().unflatten(1, (rows, columns)).float().cpu()


@contextmanager
def _recorded(model: OFAModel, gradients: bool) -> Iterator[list[Tensor]]:
    """The weights [1, H, T, S] of the attention to the encoder's states, layer by layer as they are computed."""
    layers: list[Tensor] = []
    modules: list[Attention] = [layer.cross_attn for layer in model.decoder.layers]  # type: ignore[misc]

    def attend_with(module: Attention) -> None:
        def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
            if mask is not None:
                bias = bias.masked_fill(mask[:, None, None, :], -torch.inf)
            weights = (queries @ keys.transpose(-1, -2) * module.scale + bias).softmax(-1)
            if gradients:
                weights = weights if weights.requires_grad else weights.requires_grad_()
                weights.retain_grad()
            layers.append(weights)
            return weights @ values

        vars(module)["attend"] = attend

    try:
        for module in modules:
            attend_with(module)
        yield layers
    finally:
        for module in modules:
            vars(module).pop("attend", None)
