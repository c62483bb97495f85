"""The process's heap: whether memory that is freed stays with it."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT = 2**30
"""Bytes of the largest block that is kept; glibc by itself keeps none above 32 MiB."""


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks for the next ones, until the process ends.

    A model's temporaries of more than 32 MiB are otherwise taken from the system anew each time,
    page by page. For programs, which own their process; a library should leave this to them.

    Returns:
        True if set; False where the C library is not glibc, or the environment has settings for
        it (``MALLOC_*``, ``GLIBC_TUNABLES``), which are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = library.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    return bool(kept and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
