"""The same model, faster: its modules become subclasses of what they were, in place, with the same weights.

What changes, for inference only: linear layers on a CPU run through oneDNN, which is somewhat faster than torch's own
choice for many rows and several times faster for the few of a decoding step; the image stem's BatchNorm is folded into
its convolutions, and those of 3 × 3 take a quarter of the multiplications; position biases are kept instead of computed
for every batch; padded samples attend one by one instead of through a mask for every sample, head, query and key; and
the feed-forwards of large batches run piece by piece.

It stays one model: parameters, names, hooks and ``state_dict`` are what they were, and a part that is replaced or
hooked into computes as it would in the plain model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from ..model.attention import Attention
from ..model.decoder import Decoder
from ..model.encoder import Encoder, Memory
from ..model.layers import Adapter, DecoderLayer, FeedForward, PrefixPrompt
from ..model.ofa import OFAModel
from ..model.position_bias import AbsoluteBias, RelativeBias
from ..text.vocabulary import PAD
from ..vision.drop_path import DropPath
from ..vision.resnet import Bottleneck, ResNetStem, Stage
from .bias_cache import FastEncoder
from .compiled_decoder import CompiledDecoder, CompiledStep
from .fast_layers import FastAttention, FastFeedForward, FastLinear, PackedProduct
from .int8 import Int8Linear, check_int8
from .position_table import FastDecoder
from .resnet_folded import FastBottleneck, FastResNetStem, FastStage
from .untouched import may_replace, untouched
from .weight_cache import WeightCache

P = ParamSpec("P")
R = TypeVar("R")


def _checked(method: Callable[Concatenate[FastOFAModel, P], R]) -> Callable[Concatenate[FastOFAModel, P], R]:
    """``method`` as a call that first checks what was derived from weights, unless a call around it did so."""

    @wraps(method)
    def call(self: FastOFAModel, *args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        with self.weight_cache.checked_call():
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]  # which differs in the name of self only


class FastOFAModel(OFAModel):
    """The network whose methods use what was derived from its weights."""

    weight_cache: WeightCache
    #: The compiled step of a model that decodes in static shapes.
    compiled_step: Callable[[CompiledDecoder], Tensor] | None
    _product: PackedProduct

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache
        self.compiled_step = None
        self._product = PackedProduct(cache)

    encode = _checked(OFAModel.encode)
    image_features = _checked(OFAModel.image_features)
    decode = _checked(OFAModel.decode)
    decode_states = _checked(OFAModel.decode_states)
    forward = _checked(OFAModel.forward)
    classify = _checked(OFAModel.classify)

    @_checked
    def logits(self, states: Tensor) -> Tensor:
        """As :meth:`OFAModel.logits`."""
        weight = self.token_embedding._parameters.get("weight")
        if weight is None or not self._product.should_use(states, weight):
            return super().logits(states)
        return self._product(states, weight, None)

    def padding_mask(self, tokens: Tensor) -> Tensor | None:
        """As :meth:`OFAModel.padding_mask`; None where nothing is padding."""
        mask = super().padding_mask(tokens)
        return mask if not may_replace() or mask is None or bool(mask.any()) else None

    def target_mask(self, prefix: Tensor, start: int) -> Tensor | None:
        """As :meth:`OFAModel.target_mask`; None where everything is seen."""
        if not may_replace() or bool(prefix.eq(PAD).any()):
            return super().target_mask(prefix, start)
        if start == prefix.shape[1] - 1:
            return None
        at = torch.arange(prefix.shape[1], device=prefix.device)
        return at[None, :] > at[start:, None]


@runtime_checkable
class Attachable(Protocol):
    """A module that keeps something in its model's cache."""

    def attach(self, cache: WeightCache) -> None:
        """Begin with ``cache``; what is set here is annotated in the class, so that :func:`plain` can remove it."""


#: The faster class of each plain one.
FAST: dict[type[nn.Module], type[nn.Module]] = {
    OFAModel: FastOFAModel,
    Encoder: FastEncoder,
    Decoder: FastDecoder,
    Attention: FastAttention,
    FeedForward: FastFeedForward,
    nn.Linear: FastLinear,
    ResNetStem: FastResNetStem,
    Stage: FastStage,
    Bottleneck: FastBottleneck,
}
#: The classes whose forward a compiler may see instead of calling it.
_KNOWN = frozenset(
    {*FAST, *FAST.values(), Int8Linear, DecoderLayer, Adapter, PrefixPrompt, AbsoluteBias, RelativeBias, DropPath}
    | {nn.Embedding, nn.LayerNorm, nn.GELU, nn.Dropout, nn.Identity, nn.ModuleList, nn.Sequential, nn.ReLU}
)
#: The plain class of each faster one.
PLAIN: dict[type[nn.Module], type[nn.Module]] = {fast: plain for plain, fast in FAST.items()} | {Int8Linear: nn.Linear}


def optimized(model: OFAModel, *, int8: bool = False, compile_steps: bool = False) -> OFAModel:
    """Make a model answer faster, in place.

    Where gradients are recorded it computes as before. Modules of a user's own classes stay what they are; so does a
    whole model of one. The last call decides about ``int8`` and ``compile_steps``.

    Args:
        model: the model, whose modules change their classes.
        int8: use weights rounded to 8 bits in the linear layers of encoder and decoder layers, which is faster still,
            but no longer equal.
        compile_steps: decode in steps of fixed shapes through ``torch.compile``, which pays on GPUs, where it makes
            them CUDA graphs.

    Returns:
        The model itself.

    Raises:
        OFAError: ``int8`` where it cannot be computed.
    """
    if int8:
        check_int8(model.device)
    plain(model)
    if type(model) is not OFAModel:
        return model
    layers = [*model.encoder.layers, *model.decoder.layers]
    rounded = {module for layer in layers for module in layer.modules()} if int8 else set()
    cache = WeightCache()
    for module in list(model.modules()):
        kind = Int8Linear if type(module) is nn.Linear and module in rounded else FAST.get(type(module))
        if kind is not None:
            module.__class__ = kind
            if isinstance(module, Attachable):
                module.attach(cache)
    if compile_steps and isinstance(model, FastOFAModel):
        model.compiled_step = CompiledStep("reduce-overhead" if model.device.type == "cuda" else None)
    return model


def plain(model: OFAModel) -> OFAModel:
    """Undo :func:`optimized`, in place; returns the model itself."""
    for module in model.modules():
        kind = type(module)
        if kind in PLAIN:
            for name in kind.__annotations__:  # what attach() has set
                vars(module).pop(name, None)
            module.__class__ = PLAIN[kind]
    return model


@contextmanager
def answering(*models: OFAModel) -> Iterator[None]:
    """Check what was derived from the weights of ``models`` once, for all that is computed within."""
    with ExitStack() as stack:
        for model in models:
            if isinstance(model, FastOFAModel):
                stack.enter_context(model.weight_cache.checked_call())
        yield


def refresh(model: OFAModel) -> None:
    """Forget everything that was derived from the weights of ``model``; it is derived anew where it is needed."""
    if isinstance(model, FastOFAModel):
        model.weight_cache.clear()


def compiles_steps(model: OFAModel) -> bool:
    """Tell whether the decoding steps of ``model`` are compiled; not where something hooks into what they call."""
    fast = isinstance(model, FastOFAModel) and model.compiled_step is not None
    return fast and untouched([model.token_embedding, model.decoder], _KNOWN)


def compiled_decoder(model: OFAModel, memory: Memory, rows: int, length: int) -> CompiledDecoder:
    """The decoder of a model that :func:`compiles_steps`; see :class:`CompiledDecoder`."""
    step = model.compiled_step if isinstance(model, FastOFAModel) else None
    return CompiledDecoder(model, memory, rows, length, step)
