"""Devices and types that a model can compute on and in, checked before anything is loaded or moved."""

from __future__ import annotations

import torch

from ..errors import OFAError


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """``dtype``, by its name in torch too (``float16``, ``half``, ``torch.float16``), if it is one to compute in.

    Raises:
        OFAError: it is none.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return None
    if not isinstance(found, torch.dtype) or not (found == torch.int8 or found.is_floating_point):
        raise OFAError(f"dtype must be float32, float16, bfloat16 or int8, not {dtype}")
    return found


def check_device(device: str | torch.device) -> None:
    """Refuse a device that is not there.

    Raises:
        OFAError: it is not.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise OFAError(f"device {str(device)!r} is not available here: torch finds no CUDA GPU")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OFAError(f"device {str(device)!r} is not available here: {str(error).splitlines()[0]}") from None
