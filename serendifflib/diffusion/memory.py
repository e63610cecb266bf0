"""The allocator of the C library: keep large blocks instead of returning them.

A training step makes and drops some dozens of tensors of 10 MB. By default
glibc maps each of them anew and gives it back at once, so that the kernel
clears every page again and again: a quarter of the time of a small U-Net's
step on a processor. Results do not depend on it.
"""

from __future__ import annotations

import ctypes
import functools
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


@functools.cache
def keep_large_blocks() -> bool:
    """Let this process keep freed blocks of up to 1 GiB, for reuse.

    The process then holds its peak memory until it ends. It is done once;
    other C libraries than glibc are left alone.

    Returns:
        whether the allocator took the advice.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    )
