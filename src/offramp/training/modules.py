"""A user's torch module, named on the command line: imported, called, its weights read."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from offramp.errors import OfframpError


def load_module(reference: str, weights: Path | None = None) -> nn.Module:
    """Call the function or class that `reference` names and give what it returns.

    Args:
        reference: FILE.py:NAME or PACKAGE.MODULE:NAME; NAME takes no arguments. Its code is run.
        weights: safetensors file with every parameter and buffer of the module.

    Raises:
        OfframpError: there is no such file, module or name, it does not give a module, or the weights are
            not the module's.
    """
    source, colon, name = reference.rpartition(":")
    if not colon or not name.isidentifier():
        raise OfframpError("module", reference, "must be FILE.py:NAME or PACKAGE.MODULE:NAME")
    make = getattr(_import(source, reference), name, None)
    if not callable(make):
        raise OfframpError("module", reference, f"{source} has no function or class {name}")
    module = make()
    if not isinstance(module, nn.Module):
        raise OfframpError("module", reference, f"must give a torch module, gives {type(module).__name__}")
    if weights is not None:
        _read_weights(module, weights)
    return module


def _import(source: str, reference: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source)
        if not path.is_file():
            raise OfframpError("module", reference, f"no such file {source}")
        # A name of its own: the file may be called like a package.
        spec = importlib.util.spec_from_file_location(f"{__name__}.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        imported = importlib.util.module_from_spec(spec)
        # Dataclasses, among others, look their own module up while it is being run.
        sys.modules[spec.name] = imported
        try:
            spec.loader.exec_module(imported)
        except BaseException:
            del sys.modules[spec.name]
            raise
        return imported
    except (ImportError, SyntaxError, UnicodeDecodeError) as error:
        raise OfframpError("module", reference, f"cannot be imported ({error})") from None


def _read_weights(module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise OfframpError("weights", str(path), f"is not a readable safetensors file ({error})") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise OfframpError("weights", str(path), f"are not the module's ({reason})") from None
