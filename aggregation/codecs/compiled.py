"""How the kernels are compiled, and that a machine without a place to keep the result compiles them all the same.

Numpy's error model: a division by zero gives inf or NaN, as IEEE 754 says, instead of raising. Without a branch for the
raise at each division LLVM vectorizes the loop. No bit of a result changes.

numba keeps compiled code beside the source, else in a folder of the user. Where neither can be written it refuses to
work, and where a disk is full it fails in the middle of a call. Keeping it saves seconds and decides nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])


class _Kept(FunctionCache):
    """numba's own cache of a function, which is not there while its folder cannot be read or written."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(OSError, EOFError):
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(*, cached: bool) -> Callable[[Function], Function]:
    """Compile without the interpreter's lock; ``cached`` keeps the code on disk where there is a place for it."""

    def compile_it(function: Function) -> Function:
        dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
        if cached and hasattr(dispatcher, "enable_caching"):  # else NUMBA_DISABLE_JIT gave the function back
            with contextlib.suppress(RuntimeError, OSError):  # "no locator available"
                dispatcher._cache = _Kept(function)  # type: ignore[no-untyped-call]  # noqa: SLF001
        return dispatcher  # type: ignore[no-any-return]

    return compile_it
