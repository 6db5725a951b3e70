"""What crosses a cut, as fewer bytes: each codec packs a cut's tensors and may compress what it has packed.

A payload is the packed tensors in the cut's order, without a header: names, types, shapes and so the number of
packed bytes follow from the model's declaration, the codec's name travels beside the payload, and a payload that
would unpack to any other number of bytes is refused before it is unpacked. No pickle.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from offramp.errors import MissingExtraError, OfframpError
from offramp.model.quantisers import AffineBytes, Halves, Quantiser, Unchanged
from offramp.model.tensors import Array, TensorSpec, check_tensors
from offramp.task import UNCODED

ZSTD_LEVEL = 1
"""The quickest that still packs zeros well; higher levels take longer than the bytes that they save."""
_LEAST_WINDOW = 1024


class Compression(Protocol):
    """Lossless, for a known number of bytes."""

    def compress(self, packed: bytes) -> bytes:
        """Fewer bytes, if there is anything to find in them. MissingExtraError without its package."""
        ...

    def decompress(self, payload: memoryview, length: int) -> bytes | memoryview:
        """`length` bytes. OfframpError, before memory is taken, if it would be more; and if it is not as many."""
        ...


class Uncompressed:
    """As it is."""

    def compress(self, packed: bytes) -> bytes:
        """See `Compression`."""
        return packed

    def decompress(self, payload: memoryview, length: int) -> memoryview:
        """See `Compression`."""
        _check_length(payload.nbytes, length)
        return payload


class Lz4:
    """LZ4 block format."""

    def compress(self, packed: bytes) -> bytes:
        """See `Compression`."""
        compressed: bytes = _package("lz4.block").compress(packed, store_size=False)
        return compressed

    def decompress(self, payload: memoryview, length: int) -> bytes:
        """See `Compression`. The block is unpacked into `length` bytes at most."""
        block = _package("lz4.block")
        try:
            packed: bytes = block.decompress(payload, uncompressed_size=length)
        except block.LZ4BlockError as error:
            raise _refuse(str(error)) from None
        _check_length(len(packed), length)
        return packed


class Zstandard:
    """One Zstandard frame that states its content's size."""

    def compress(self, packed: bytes) -> bytes:
        """See `Compression`."""
        compressed: bytes = _package("zstandard").ZstdCompressor(level=ZSTD_LEVEL).compress(packed)
        return compressed

    def decompress(self, payload: memoryview, length: int) -> bytes:
        """See `Compression`. The frame's own word on its size is held against `length` first."""
        zstandard = _package("zstandard")
        try:
            _check_length(zstandard.get_frame_parameters(payload).content_size, length)
            reader = zstandard.ZstdDecompressor(max_window_size=max(length, _LEAST_WINDOW))
            packed: bytes = reader.decompress(payload, max_output_size=length, allow_extra_data=False)
        except (zstandard.ZstdError, ValueError) as error:
            raise _refuse(str(error)) from None
        _check_length(len(packed), length)
        return packed


@dataclass(frozen=True, slots=True)
class Codec:
    """How the tensors of a cut travel. `package` must be installed, if it names one."""

    name: str
    quantiser: Quantiser
    compression: Compression
    package: str | None = None

    def changes(self, specs: Sequence[TensorSpec]) -> bool:
        """Whether it does more at such a cut than the same compression without its quantiser would."""
        if isinstance(self.quantiser, Unchanged):
            return self.package is not None
        return any(self.quantiser.changes(spec) for spec in specs)

    @property
    def lossless(self) -> bool:
        """Whether the tensors arrive as they left."""
        return isinstance(self.quantiser, Unchanged)

    @property
    def installed(self) -> bool:
        """Whether this host can encode and decode with it."""
        try:
            self.require()
        except MissingExtraError:
            return False
        return True

    def require(self) -> None:
        """Raises MissingExtraError if its package is not installed."""
        if self.package is not None:
            _package(self.package)

    def packed_bytes(self, specs: Sequence[TensorSpec], size: int) -> int:
        """Bytes of a payload before it is compressed."""
        return sum(self._packing(spec).packed_bytes(spec, size) for spec in specs)

    def encode(self, tensors: Mapping[str, Array], specs: Sequence[TensorSpec]) -> bytes:
        """The payload of what crosses. OfframpError for tensors that are not what `specs` declares, NaN, infinity."""
        check_tensors(tensors, specs)
        return self.compression.compress(
            b"".join(self._packing(spec).pack(tensors[spec.name], spec) for spec in specs)
        )

    def decode(self, payload: bytes | memoryview, specs: Sequence[TensorSpec], size: int) -> dict[str, Array]:
        """The tensors for `size` inputs. OfframpError for a payload that this codec does not make of such tensors."""
        packed = memoryview(self.compression.decompress(memoryview(payload), self.packed_bytes(specs, size)))
        tensors, start = {}, 0
        for spec in specs:
            packing = self._packing(spec)
            end = start + packing.packed_bytes(spec, size)
            tensors[spec.name] = packing.unpack(packed[start:end], spec, size)
            start = end
        return tensors

    def _packing(self, spec: TensorSpec) -> Quantiser:
        return self.quantiser if self.quantiser.changes(spec) else _UNCHANGED


_UNCHANGED = Unchanged()
_QUANTISERS: dict[str, Quantiser] = {
    UNCODED: _UNCHANGED,
    "fp16": Halves(),
    "uint8": AffineBytes(),
    "uint8-channel": AffineBytes(by_channel=True),
}
_COMPRESSIONS: dict[str, tuple[Compression, str | None]] = {
    "": (Uncompressed(), None),
    "+lz4": (Lz4(), "lz4.block"),
    "+zstd": (Zstandard(), "zstandard"),
}
CODECS: dict[str, Codec] = {
    name + suffix: Codec(name + suffix, quantiser, compression, package)
    for name, quantiser in _QUANTISERS.items()
    for suffix, (compression, package) in _COMPRESSIONS.items()
    if name + suffix != UNCODED
}
"""Every codec by its name. `fp32`, the tensors as they are, is what happens without one."""


def find_codec(name: str) -> Codec:
    """A codec by its name. Raises OfframpError if there is none."""
    if name not in CODECS:
        raise OfframpError("codec", name, f"one of {', '.join(CODECS)}", "choose one of these")
    return CODECS[name]


def installed_codecs() -> tuple[str, ...]:
    """Names of the codecs that this host can use."""
    return tuple(name for name, codec in CODECS.items() if codec.installed)


def named_codecs(names: str | None, all_of: Collection[str]) -> tuple[str, ...]:
    """Codecs from a list with commas; those in `all_of` for `all`; `fp32` and None add nothing.

    They need not be installed. Raises OfframpError for a name that is none.
    """
    wanted = set(all_of) if names == "all" else {name.strip() for name in (names or "").split(",")}
    for name in sorted(wanted - {"", UNCODED}):
        find_codec(name)
    return tuple(name for name in CODECS if name in wanted)


def largest_payload(cuts: Iterable[Sequence[TensorSpec]], size: int) -> int:
    """Bytes that a payload may take at most at one of these cuts for `size` inputs, whatever the codec."""
    packed = (codec.packed_bytes(specs, size) for specs in cuts for codec in CODECS.values())
    # What cannot be compressed grows a little: by 1/255 with LZ4, by less with Zstandard.
    return max((count + count // 128 + 512 for count in packed), default=0)


def chosen_codecs(names: str) -> tuple[str, ...]:
    """Codecs that this host is to use, from a list with commas; all that are installed for `all`.

    Raises OfframpError for a name that is none, MissingExtraError for one whose package is not installed.
    """
    chosen = named_codecs(names, installed_codecs())
    for name in chosen:
        find_codec(name).require()
    return chosen


def codecs_for(specs: Sequence[TensorSpec], among: Iterable[str]) -> list[Codec]:
    """Those that make a difference at a cut where such tensors cross."""
    return [CODECS[name] for name in among if CODECS[name].changes(specs)]


@functools.cache
def _package(name: str) -> ModuleType:
    # Written out, so that what is optional can be found by searching for imports.
    try:
        if name == "lz4.block":
            import lz4.block

            module: ModuleType = lz4.block
            return module
        import zstandard
    except ImportError:
        raise MissingExtraError(name.partition(".")[0], "compress") from None
    return zstandard


def _check_length(found: int, expected: int) -> None:
    if found != expected:
        raise _refuse(f"stands for {found} bytes, not {expected}")


def _refuse(reason: str) -> OfframpError:
    return OfframpError("payload", reason, "must be what the codec makes of the cut's tensors")
