"""Files in, files out: pydantic's complaints as one line, and writes that leave nothing half-written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from offramp.errors import OfframpError

Model = TypeVar("Model")


def one_line(error: ValidationError, source: str, remedy: str) -> OfframpError:
    """The first complaint of a validation as field, value, what is allowed; the others counted."""
    first = error.errors()[0]
    # Tags of discriminated unions and validators' names are pydantic's own and mean nothing to a reader.
    place = ".".join(str(part) for part in first["loc"]) or "file"
    allowed = first["msg"].removeprefix("Value error, ")
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return OfframpError(f"{source}: {place}", first["input"], allowed + more, remedy)


def parse_json(model: type[Model], text: str | bytes, source: str) -> Model:
    """Parse and validate JSON. `source` names the text in an OfframpError."""
    try:
        return TypeAdapter(model).validate_json(text)
    except ValidationError as error:
        raise one_line(error, source, f"correct it in {source}") from None


def parse_value(
    model: type[Model], value: object, source: str, remedy: str = "give a value in range"
) -> Model:
    """Validate a value that is already in memory. `source` names it in an OfframpError."""
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        raise one_line(error, source, remedy) from None


def read_text(path: Path, field: str) -> str:
    """Read a text file a user named; OfframpError if that cannot be done."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise OfframpError(
            field, str(path), f"cannot be read ({reason})", "give a file that exists"
        ) from None


def check_output(path: Path, field: str = "output") -> None:
    """Before long work whose result goes there: raises OfframpError if no file can be written at this path."""
    if path.is_dir():
        raise OfframpError(field, str(path), "cannot be written (it is a folder)", "name a file")
    if not path.parent.is_dir():
        raise OfframpError(
            field, str(path), "cannot be written (no such folder)", "give a folder that exists"
        )


def make_folder(path: Path, field: str = "output") -> None:
    """Make a folder with those above it, unless it exists. Raises OfframpError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfframpError(
            field, str(path), f"cannot be made a folder ({error.strerror})", "name another"
        ) from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it, then a rename. OfframpError if that fails."""
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            temporary = Path(handle.name)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OfframpError(
            "output", str(path), f"cannot be written ({error.strerror})", "give a folder that exists"
        ) from None


def dump_json(value: dict[str, Any]) -> str:
    """One JSON object on one line, the same bytes for the same value. NaN and infinities are refused."""
    return json.dumps(value, allow_nan=False, separators=(", ", ": ")) + "\n"
