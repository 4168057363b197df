"""Half a gigabyte of weights, given back when they are no longer used."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect what nothing refers to any more, and give the freed pages back to the system.

    The weights of a language model are many pieces of a few megabytes. glibc takes such pieces
    from its heap and keeps the pages after they are freed: a second model then lies beside the
    first one's empty place. Without glibc this is `gc.collect()`.
    """
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # another C library, which has its own ways
            return
