"""What a result was made with: commit, versions, host."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import offramp

_PACKAGES = ("numpy", "numba", "onnxruntime", "scipy")


def provenance() -> dict[str, Any]:
    """Commit (None outside a checkout, marked if the package has changed since), versions and processor."""
    return {
        "commit": _commit(),
        "offramp": offramp.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "host": {"system": platform.system(), "machine": platform.machine(), "processor": _processor()},
    }


def _commit() -> str | None:
    try:
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str:
    """What git says in the package's folder: what lies beside it, like results, does not count."""
    folder = Path(offramp.__file__).parent
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
