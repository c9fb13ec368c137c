"""Memory that a large command has freed goes back to the machine: glibc would keep it for the next one."""

import ctypes
import gc


def give_back() -> bool:
    """Returns freed memory to the kernel, in a few milliseconds; False where the C library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    gc.collect()
    return bool(trim(0))
