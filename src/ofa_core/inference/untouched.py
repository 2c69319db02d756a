"""The question whether a module still does what its class does, so that something else may compute it instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import nn
from torch.nn.modules import module as torch_module

#: The places where a module keeps its hooks.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def untouched(module: nn.Module | None, kinds: Collection[type[nn.Module]]) -> bool:
    """Tell whether ``module`` is exactly of one of ``kinds``, with its class's own forward and without hooks.

    Args:
        module: any module; None, which stands for no module, is untouched.
        kinds: the classes that are known here.
    """
    if module is None:
        return True
    own = vars(module)
    return type(module) in kinds and "forward" not in own and not any(own[hooks] for hooks in _HOOKS)


def all_untouched(modules: Iterable[nn.Module | None], kinds: Collection[type[nn.Module]]) -> bool:
    """Tell whether all ``modules``, and those within them, are :func:`untouched`."""
    return all(
        untouched(module, kinds) and all_untouched(module._modules.values(), kinds) if module is not None else True
        for module in modules
    )


def may_replace() -> bool:
    """Tell whether computing in another way is right now: no gradients, no tracing, no hooks into all modules."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch_module._has_any_global_hook()
    )
