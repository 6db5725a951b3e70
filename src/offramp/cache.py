"""Where finished work is kept for the next process: plans, learned networks."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder(kind: str) -> Path:
    """The folder for one kind of finished work, in `OFFRAMP_CACHE`, else where the system has caches; not made."""
    named = os.environ.get("OFFRAMP_CACHE")
    return (Path(named) if named else platformdirs.user_cache_path("offramp", appauthor=False)) / kind
