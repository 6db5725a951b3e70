"""`offramp bundle`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.arguments import print_json
from offramp.cli.model import measured_right
from offramp.cli.options import InputSeed, JsonFlag
from offramp.cli.profiling import measured_profile
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.model.bundle import Bundle
    from offramp.model.executor import ChainExecutor


def bundle(
    model: Annotated[Path, typer.Argument(help="ONNX file; every output is an exit.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle to write.")],
    accuracies: Annotated[
        str | None, typer.Option("--accuracies", help="Accuracy of each exit in (0, 1], with commas.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Image folder to measure accuracies on, without --accuracies."),
    ] = None,
    limit_s: Annotated[
        float, typer.Option("--limit-s", min=0, help="Stop measuring times early after so many seconds.")
    ] = 120.0,
    seed: InputSeed = 0,
    json_: JsonFlag = False,
) -> None:
    """Make any ONNX file a bundle that edge, device and demo run: with its accuracies, and this host's profile."""
    from offramp.model.bundle import MANIFEST_NAME, PROFILE_NAME, load_bundle, save_bundle
    from offramp.model.executor import ChainExecutor

    if (
        output.exists()
        and not (output / MANIFEST_NAME).is_file()
        and (output.is_file() or any(output.iterdir()))
    ):
        raise OfframpError("-o", str(output), "must be new, empty, or a bundle", "name another folder")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / model.name
        load_bundle(
            model
        )  # refuses what is no model, or reaches out of its folder, before anything is copied
        whole.write_bytes(_with_its_weights(model))
        loaded = load_bundle(whole)
        executor = ChainExecutor(loaded.model, threads=1)
        known = _measured(executor, data) if accuracies is None else _stated(accuracies, loaded)
        profile = measured_profile(executor, None, limit_s, seed, known)
        exits = tuple(
            info.model_copy(update={"accuracy": accuracy})
            for info, accuracy in zip(loaded.manifest.exits, known, strict=True)
        )
        files: dict[str, Path | bytes] = {"model.onnx": whole, PROFILE_NAME: profile.to_json().encode()}
        manifest = save_bundle(output, loaded.manifest.model_copy(update={"exits": exits}), files)
    if json_:
        print_json(manifest.model_dump(mode="json"))
    else:
        shown = ", ".join(f"{accuracy:.4f}" for accuracy in known)
        typer.echo(f"{output}: {len(known)} exits, accuracies {shown}")


def _with_its_weights(model: Path) -> bytes:
    """The file's bytes, weights that it keeps in other files taken in."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    proto = onnx.load(model, load_external_data=False)
    if not any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        return model.read_bytes()
    whole: bytes = onnx.load(model).SerializeToString(deterministic=True)
    return whole


def _stated(text: str, loaded: Bundle) -> tuple[float, ...]:
    exits = len(loaded.manifest.exits)
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != exits or not all(0 < value <= 1 for value in values):
        raise OfframpError(
            "--accuracies", text, f"must be {exits} numbers in (0, 1]", "give one for each exit"
        )
    return values


def _measured(executor: ChainExecutor, data: Path | None) -> tuple[float, ...]:
    if data is None:
        raise OfframpError(
            "--accuracies", None, "each exit's must be known", "state them, or measure with --data"
        )
    done, right = measured_right(executor, data)
    if not all(right.values()):
        raise OfframpError(
            "data", str(data), "no image is answered right at some exit", "state --accuracies instead"
        )
    return tuple(right[number] / done for number in sorted(right))
