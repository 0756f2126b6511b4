"""Where networks run: a device by its name, if torch can use it here."""

from __future__ import annotations

import torch

from encoscope.errors import UsageError


def find_device(name: str | torch.device) -> torch.device:
    """Find a device, and try it where torch does not say how many there are.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", ...; "auto" is the GPU if there is one, else the CPU.

    Returns:
        The device.

    Raises:
        UsageError: For an unknown name, and a device that is not there.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device {name!r}: torch finds {torch.cuda.device_count()} GPUs")
    if device.type == "meta":
        raise UsageError("device 'meta' holds no values, so nothing can be computed there: use auto, cpu or cuda")
    if device.type not in ("cpu", "cuda"):
        try:
            torch.ones(1, device=device).sum()
        except Exception as error:  # each kind of device raises its own
            raise UsageError(f"there is no device {str(name)!r} that torch can use here: use auto or cpu") from error
    return device
