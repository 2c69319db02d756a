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
from inspect import get_annotations
from typing import Concatenate, ParamSpec, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
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
from .fast_layers import FastAttention, FastCrossAttention, FastFeedForward, FastLinear, PackedProduct
from .int8 import Int8Linear, Int8Product, check_int8
from .int8_attention import Int8CrossAttention, Int8Encoder, Int8SelfAttention
from .position_table import FastDecoder
from .resnet_folded import FastBottleneck, FastResNetStem, FastStage, Int8ResNetStem
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
        return self._project(states)

    def _project(self, states: Tensor) -> Tensor:
        weight = self.token_embedding._parameters.get("weight")
        if weight is None or not self._product.should_use(states, weight):
            return super().logits(states)
        return self._product(states, weight, None)

    @_checked
    def logits_of(self, states: Tensor, ids: Tensor) -> Tensor:
        """Compute the logits of some tokens alone, as :meth:`logits` has them among those of all.

        The weights of ids that are asked for again are at hand.

        Args:
            states: the decoder's, [..., D].
            ids: [n], the tokens.

        Returns:
            Logits [..., n].
        """
        memo = self.weight_cache.memo if may_replace() else None
        if memo is None:
            return F.linear(states, self.token_embedding.weight[ids])
        key = (self, "logits_of")
        kept = memo.get(key)
        if not isinstance(kept, tuple) or not torch.equal(kept[0], ids):
            memo[key] = kept = (ids, self.token_embedding.weight[ids])
        return F.linear(states, kept[1])

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


class Int8OFAModel(FastOFAModel):
    """The network with its output projection of 8 bits as well."""

    _output: Int8Product

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        super().attach(cache)
        self._output = Int8Product(cache)

    def _project(self, states: Tensor) -> Tensor:
        weight = self.token_embedding._parameters.get("weight")
        if weight is None or not self._output.may_use(weight):
            return super()._project(states)
        return self._output(states, (weight,))


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
#: Those of a model in int8 that are others.
INT8: dict[type[nn.Module], type[nn.Module]] = {
    OFAModel: Int8OFAModel,
    Encoder: Int8Encoder,
    ResNetStem: Int8ResNetStem,
}
#: The faster classes of attention that are others than :data:`FAST` has, by its name in a layer.
ATTENTION: dict[str, type[nn.Module]] = {"cross_attn": FastCrossAttention}
INT8_ATTENTION: dict[str, type[nn.Module]] = {"cross_attn": Int8CrossAttention, "self_attn": Int8SelfAttention}
#: The plain class of each faster one.
PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    **{fast: plain for plain, fast in (*FAST.items(), *INT8.items())},
    **dict.fromkeys([*ATTENTION.values(), *INT8_ATTENTION.values()], Attention),
    Int8Linear: nn.Linear,
}
#: The classes whose forward a compiler may see instead of calling it.
_KNOWN = frozenset(
    {*PLAIN, *PLAIN.values(), DecoderLayer, Adapter, PrefixPrompt, AbsoluteBias, RelativeBias, DropPath}
    | {nn.Embedding, nn.LayerNorm, nn.GELU, nn.Dropout, nn.Identity, nn.ModuleList, nn.Sequential, nn.ReLU}
)


def optimized(model: OFAModel, *, int8: bool = False, compile_steps: bool = False) -> OFAModel:
    """Make a model answer faster, in place.

    Where gradients are recorded it computes as before. Modules of a user's own classes stay what they are; so does a
    whole model of one. The last call decides about ``int8`` and ``compile_steps``.

    Args:
        model: the model, whose modules change their classes.
        int8: use weights rounded to 8 bits in the linear layers of encoder and decoder layers and in the output
            projection, and bfloat16 in attention where the CPU computes in it; faster still, but no longer equal.
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
    in_layers = {module for layer in layers for module in layer.modules()}
    cache = WeightCache()
    for name, module in list(model.named_modules()):
        kind = _faster_class(type(module), name.rpartition(".")[2], int8=int8, in_layer=module in in_layers)
        if kind is not None:
            module.__class__ = kind
            if isinstance(module, Attachable):
                module.attach(cache)
    if compile_steps and isinstance(model, FastOFAModel):
        model.compiled_step = CompiledStep("reduce-overhead" if model.device.type == "cuda" else None)
    return model


def _faster_class(kind: type[nn.Module], name: str, *, int8: bool, in_layer: bool) -> type[nn.Module] | None:
    """The class that takes the place of ``kind`` in a module of this ``name``; None where there is none."""
    if kind is Attention:
        return (INT8_ATTENTION if int8 else ATTENTION).get(name, FastAttention)
    if kind is nn.Linear and in_layer and int8:
        return Int8Linear
    return INT8.get(kind, FAST.get(kind)) if int8 else FAST.get(kind)


def plain(model: OFAModel) -> OFAModel:
    """Undo :func:`optimized`, in place; returns the model itself."""
    for module in model.modules():
        kind = type(module)
        if kind in PLAIN:
            for base in kind.__mro__[: kind.__mro__.index(PLAIN[kind])]:
                for name in get_annotations(base):  # what attach() has set
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


def gives_some_logits(model: OFAModel) -> TypeGuard[FastOFAModel]:
    """Tell whether ``model.logits_of`` gives some of what ``model.logits`` gives, which is no user's own."""
    return type(model) in (FastOFAModel, Int8OFAModel) and not {"logits", "logits_of"} & vars(model).keys()


def compiles_steps(model: OFAModel) -> bool:
    """Tell whether the decoding steps of ``model`` are compiled; not where something hooks into what they call."""
    fast = isinstance(model, FastOFAModel) and model.compiled_step is not None
    return fast and untouched([model.token_embedding, model.decoder], _KNOWN)


def compiled_decoder(model: OFAModel, memory: Memory, rows: int, length: int) -> CompiledDecoder:
    """The decoder of a model that :func:`compiles_steps`; see :class:`CompiledDecoder`."""
    step = model.compiled_step if isinstance(model, FastOFAModel) else None
    return CompiledDecoder(model, memory, rows, length, step)
