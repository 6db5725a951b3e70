"""`serial-dp` against the paper's listing."""

from __future__ import annotations
