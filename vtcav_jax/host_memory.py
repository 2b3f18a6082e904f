"""Memory of the process outside accelerators."""

import ctypes
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8  # numbers of the parameters of glibc's mallopt
MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep memory that is freed for the next arrays of this process; return False where the C library cannot.

    By default, glibc returns blocks above 32 MiB to the system, and the system fills them with zeros when they are
    needed again. A compiled program has one block for all its intermediate results, so that a network on a CPU spends
    a tenth to a third of its time waiting for memory that it had before. In return, the process stays as large as it
    ever was. Blocks above 2 GiB are still returned.

    Commands do this at their start. Call it before the first computation: with threads that have memory of their own
    already, it has little effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Threads' own arenas hold no block above 32 MiB
    accepted = [mallopt(ARENA_MAX, 1), mallopt(MMAP_THRESHOLD, MAX_INT), mallopt(TRIM_THRESHOLD, MAX_INT)]
    return accepted == [1, 1, 1]
