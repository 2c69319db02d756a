"""The question whether modules still do what their classes do, so that something else may compute it instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import nn
from torch.nn.modules import module as torch_module

#: Hooks into all modules there are.
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def untouched(modules: Iterable[nn.Module | None], kinds: Collection[type[nn.Module]]) -> bool:
    """Tell whether nothing would be missed if ``modules``, and those within them, were not called.

    Args:
        modules: any modules; None stands for no module.
        kinds: the classes that are known here. Each module must be exactly of one of them, with its class's own
            forward and without hooks.
    """
    left = list(modules)
    while left:
        module = left.pop()
        if module is None:
            continue
        own = module.__dict__
        if (
            type(module) not in kinds
            or own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "forward" in own
        ):
            return False
        left.extend(own["_modules"].values())
    return True


def may_replace() -> bool:
    """Tell whether computing in another way is right now: no gradients, no tracing, no hooks into all modules."""
    return not (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch._C._get_tracing_state() is not None
        or any(map(len, _GLOBAL_HOOKS))
    )
