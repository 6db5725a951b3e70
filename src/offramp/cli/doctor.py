"""`offramp doctor`: what works on this machine, and what to do where something does not."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import typer
from rich.console import Console
from rich.table import Table

from offramp.cli.arguments import print_json
from offramp.cli.options import JsonFlag
from offramp.errors import OfframpError

EXTRAS: dict[str, tuple[str, ...]] = {
    "data": ("PIL", "pyarrow"),
    "research": ("gymnasium", "matplotlib", "numba", "scipy"),
    "train": ("torch", "onnxscript", "safetensors"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `needed`: the base install does not work without it."""

    name: str
    ok: bool
    needed: bool
    detail: str


def doctor(json_: JsonFlag = False) -> None:
    """Check this machine: Python, extras, the shipped bundle, data, loopback. Status 1 if what is needed fails."""
    findings = [
        Finding("python", sys.version_info >= (3, 11), True, platform.python_version()),
        *(_extra(name, modules) for name, modules in EXTRAS.items()),
        _attempt("bundle", True, _bundle),
        _attempt("profile", False, _profile),
        _attempt("data", False, _data),
        _attempt("loopback", True, _loopback),
    ]
    broken = any(finding.needed and not finding.ok for finding in findings)
    if json_:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table("what", "state", "detail")
        for finding in findings:
            state = "ok" if finding.ok else "broken" if finding.needed else "absent"
            table.add_row(finding.name, state, finding.detail)
        Console().print(table)
    if broken:
        raise typer.Exit(1)


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if find_spec(module) is None]
    remedy = f"without {', '.join(missing)}: pip install 'offramp[{name}]'"
    return Finding(f"extra {name}", not missing, False, remedy if missing else "installed")


def _attempt(name: str, needed: bool, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, needed, look())
    except (OfframpError, OSError) as error:
        return Finding(name, False, needed, str(error))


def _bundle() -> str:
    from offramp.model.bundle import load_bundle

    bundle = load_bundle(None)
    return f"{bundle.manifest.name}, {len(bundle.model.exits)} exits, hashes match"


def _profile() -> str:
    from offramp.model.bundle import load_bundle
    from offramp.model.executor import ChainExecutor
    from offramp.runtime.processor import calibrate

    bundle = load_bundle(None)
    profile = bundle.profile()
    factor = calibrate(ChainExecutor(bundle.model, threads=1), bundle.coefficients())
    curved = sum(not layer.linear for exit in profile.exits for layer in exit.layers)
    layers = (
        f"{curved} of {sum(len(exit.layers) for exit in profile.exits)} layers are not linear in the size"
    )
    return f"this machine takes {factor:.2f} times what the profile of {profile.host.cpu} says; {layers}"


def _data() -> str:
    if os.environ.get("OFFRAMP_DATA") is None:
        raise OfframpError("OFFRAMP_DATA", None, "names no folder", "generated images are used without")
    from offramp.images import load_images

    images = load_images(None, "test")
    return f"{len(images.images)} test images from {images.source}"


def _loopback() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"can listen on 127.0.0.1 (port {server.getsockname()[1]} was free)"
