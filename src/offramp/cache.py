"""Where finished work is kept for the next process, plans and learned networks, and which code it is of."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import platformdirs

import offramp


def cache_folder(kind: str) -> Path:
    """The folder for one kind of finished work, in `OFFRAMP_CACHE`, else where the system has caches; not made."""
    named = os.environ.get("OFFRAMP_CACHE")
    return (Path(named) if named else platformdirs.user_cache_path("offramp", appauthor=False)) / kind


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Hash of the package's own sources and bundled files: results of other code are not reused."""
    root = Path(offramp.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".nbi", ".nbc"}:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
