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
    """Commit (None outside a checkout, marked if files have changed since), versions and processor."""
    return {
        "commit": _commit(),
        "offramp": offramp.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "host": {"system": platform.system(), "machine": platform.machine(), "processor": _processor()},
    }


def _commit() -> str | None:
    folder = Path(offramp.__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


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
