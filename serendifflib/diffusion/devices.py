"""The fast way on the machine at hand: compiled on a GPU, kept blocks.

Results do not depend on what is chosen here, but for rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import platform
import shutil
from collections.abc import Iterator

import torch
from torch import nn

from serendifflib.errors import ConfigError

WORTH_COMPILING = 1_000  # network calls; compiling takes about a minute
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def usable_device(name: str | None) -> torch.device:
    """A device of this machine; CUDA where there is one if None.

    Raises:
        ConfigError: no such device here.
    """
    try:
        found = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name or found)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here; leave it out, or say cpu"
        ) from error
    return device


@contextlib.contextmanager
def own_randomness(seed: int | None = None) -> Iterator[None]:
    """Leave torch's global random state as it is; draw from a seed inside.

    Layers initialise themselves, and drop out, with that state.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where it is faster: on CUDA."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda"
    )


def compiled(network: nn.Module, calls: int) -> nn.Module:
    """A view of ``network`` for many calls; both share their weights.

    On CUDA the channels are laid out together, as its tensor cores read
    them, and where a compiler is at hand (triton, and one of C for its stubs)
    and the calls with one batch size are many the small operations are fused.
    Elsewhere it is the network itself.
    """
    first = next(network.parameters(), None)
    if first is None or not first.is_cuda:
        return network
    network.to(memory_format=torch.channels_last)  # type: ignore
    if calls < WORTH_COMPILING or not importlib.util.find_spec("triton"):
        return network
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return network
    return torch.compile(network, dynamic=False)  # type: ignore


@functools.cache
def keep_large_blocks() -> bool:
    """Let this process keep freed blocks of up to 1 GiB, for reuse.

    A training step makes and drops some dozens of tensors of 10 MB. By
    default glibc maps each anew and gives it back at once, so that the
    kernel clears every page again and again: a quarter of the time of a
    small U-Net's step on a processor. The process then holds its peak memory
    until it ends. Other C libraries than glibc are left alone. Returns
    whether the allocator took the advice.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    )
