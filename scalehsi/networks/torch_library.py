"""Load torch late, and let it use one thread: the networks are small, and Dask has threads of its own."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from scalehsi.schema import InputError


def load_torch(name: str, device: str) -> Any:
    """The module torch.

    name: of the model that needs it. device: "cpu" or "cuda".
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise InputError(
            f"{name} is trained with torch ({error}); type pip install 'scalehsi[networks]', or project a stored result"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda' was asked for, but torch finds no usable GPU; fit with device='cpu'")
    return torch


@contextlib.contextmanager
def one_torch_thread(torch: Any) -> Iterator[None]:
    """Let torch compute on one thread of the processor inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
