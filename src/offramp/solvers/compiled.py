"""Where numba comes in: functions compiled on first use and kept on disk, so that the next process starts warm.

Importing this module needs numba; modules that compile are imported by the functions that need them, so that
`import offramp.solvers` stays light.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import platformdirs

from offramp import equations
from offramp.errors import MissingExtraError

try:
    import numba
except ImportError:
    raise MissingExtraError("numba", "research") from None

Function = TypeVar("Function", bound=Callable[..., Any])


@cache
def _cache_folder() -> Path | None:
    """A folder for machine code that belongs to this very source, or None where nothing can be written.

    numba notices a change of the compiled file alone, not of what it calls, or of the constants that it takes from
    other files; so the folder's name holds a digest of every file that compiled code may depend on.
    """
    package = Path(equations.__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    folders = [package / name for name in ("solvers", "policies", "fleet")]
    for source in sorted([*package.glob("*.py"), *(file for each in folders for file in each.rglob("*.py"))]):
        digest.update(source.read_bytes())
    try:
        base = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_path("offramp", appauthor=False)
        folder = Path(base) / f"kernels-{digest.hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def compiled(function: Function) -> Function:
    """Compile a function in nopython mode at its first call. The machine code is kept where that is possible."""
    return _compiled(function, nogil=False)


def compiled_apart(function: Function) -> Function:
    """`compiled`, for what takes milliseconds: other threads may run meanwhile, and must leave its arrays alone.

    Short functions keep the interpreter's lock: to let go of it is an invitation to others to keep it.
    """
    return _compiled(function, nogil=True)


def _compiled(function: Function, *, nogil: bool) -> Function:
    folder = _cache_folder()
    if folder is None:
        return cast(Function, numba.njit(nogil=nogil)(function))
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        return cast(Function, numba.njit(cache=True, nogil=nogil)(function))
    finally:
        settings.CACHE_DIR = before


paper_timeline = compiled(equations.paper_timeline)
on_time = compiled(equations.on_time)
