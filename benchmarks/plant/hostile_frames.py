"""Frames that are no honest message, or only just: valid ones bent in every way that their bytes and fields allow."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from offramp.errors import OfframpError
from offramp.model.bundle import load_bundle
from offramp.model.codecs import CODECS, find_codec
from offramp.model.tensors import TensorSpec
from offramp.runtime.protocol import (
    VERSION,
    Announce,
    Attach,
    Begun,
    Bye,
    CodedUpload,
    Hello,
    Message,
    Ping,
    Probe,
    Sending,
    Upload,
    Withdraw,
    decode_from_device,
    decode_from_uploader,
    decode_to_device,
    decode_to_uploader,
    encode,
)
from offramp.runtime.wire import ProtocolError, arrays_of, wires_of

HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, "", "x" * 70, "../../etc/passwd", b"", b"\0" * 17, [], {}, [[[]]], {"a": 1}),
    *(-1, 0, 2**31, 2**53 + 1, 2**63, -(2**63), 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf),
)
DEEP = 20_000


def honest(model_sha256: str, specs: tuple[TensorSpec, ...]) -> list[Message]:
    """One of each message that a device sends."""
    arrays = {spec.name: np.zeros(spec.shape_at(1), spec.dtype) for spec in specs}
    return [
        Hello(VERSION, "honest", 1, model_sha256, 1.0, 125_000.0, 0.0, (), True),
        Announce(0, 2, 1.0, 1.0, 0, 0.0, 0.0, 1.0, 0.0, 0.0),
        Withdraw(3),
        Sending(6000),
        Ping(1),
        Bye(),
        Attach(bytes(16)),
        Upload(0, 1, 0, 1, 1.0, wires_of(arrays)),
        CodedUpload(0, 1, 0, 1, 1.0, "zstd", memoryview(bytes(200))),
        Begun(1.0, 1.0, 0.0, Upload(1, 1, 0, 1, 1.0, wires_of(arrays))),
        Probe(bytes(1500)),
    ]


def flipped(frame: bytes, rng: random.Random) -> bytes:
    """Some bytes are others."""
    bent = bytearray(frame)
    for _ in range(rng.randrange(1, 6)):
        bent[rng.randrange(len(bent))] = rng.randrange(256)
    return bytes(bent)


def early(frame: bytes, rng: random.Random) -> bytes:
    """Like `flipped`, in the first bytes: tags, lengths and types are there."""
    bent = bytearray(frame)
    bent[rng.randrange(min(len(bent), 40))] = rng.randrange(256)
    return bytes(bent)


def cut(frame: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return frame[: rng.randrange(len(frame))]


def longer(frame: bytes, rng: random.Random) -> bytes:
    """There is more than a message."""
    return frame + rng.randbytes(rng.randrange(1, 64))


def spliced(frame: bytes, rng: random.Random) -> bytes:
    """A piece is missing or is there twice."""
    first, second = sorted((rng.randrange(len(frame)), rng.randrange(len(frame))))
    return frame[:second] + frame[first:] if rng.random() < 0.5 else frame[:first] + frame[second:]


def noise(frame: bytes, rng: random.Random) -> bytes:
    """Nothing of it is left."""
    return rng.randbytes(rng.randrange(200))


def deep(frame: bytes, rng: random.Random) -> bytes:
    """Arrays in arrays in arrays."""
    return rng.choice((b"\x91", b"\x81\xa0", b"\xdd\xff\xff\xff\xff")) * rng.randrange(1, DEEP)


def refilled(frame: bytes, rng: random.Random) -> bytes:
    """A field holds what is no value of it, or one too much, or one too few."""
    fields: list[Any] = list(msgspec.msgpack.decode(frame))
    place = rng.randrange(len(fields))
    match rng.randrange(4):
        case 0:
            fields.insert(place, rng.choice(HOSTILE_VALUES))
        case 1:
            del fields[place]
        case _:
            if isinstance(fields[place], list) and fields[place] and rng.random() < 0.7:
                inner = fields[place]
                if isinstance(inner[0], list) and inner[0]:
                    inner = inner[0]
                inner[rng.randrange(len(inner))] = rng.choice(HOSTILE_VALUES)
            else:
                fields[place] = rng.choice(HOSTILE_VALUES)
    try:
        return msgspec.msgpack.encode(fields)
    except (OverflowError, ValueError, TypeError):
        return frame[:-1]


BENDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    each.__name__: each for each in (flipped, early, cut, longer, spliced, noise, deep, refilled)
}
_WEIGHTS = [3, 3, 2, 1, 2, 1, 0.02, 4]


def bent_frames(frames: list[bytes], rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """So many frames, each with the name of what was done to it."""
    names = list(BENDS)
    for _ in range(count):
        name = rng.choices(names, _WEIGHTS)[0]
        yield name, BENDS[name](rng.choice(frames), rng)


def through_the_codec(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Decode so many bent frames as either side would; the outcomes, and what was neither a message nor a refusal."""
    bundle = load_bundle(None)
    specs = bundle.model.exits[0].cuts[0]
    rng = random.Random(seed)
    frames = [encode(message) for message in honest(bundle.model.sha256, specs)]
    codecs = [find_codec(name) for name in CODECS]
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    decoders = (decode_from_device, decode_from_uploader, decode_to_device, decode_to_uploader)
    for number, (name, frame) in enumerate(bent_frames(frames, rng, count)):
        for decode in decoders if number % 10 == 0 else decoders[:2]:
            try:
                message = decode(frame)
                outcomes["message"] += 1
                if isinstance(message, Upload):
                    arrays_of(message.tensors, specs, message.size)
                    outcomes["tensors"] += 1
                elif isinstance(message, CodedUpload):
                    rng.choice(codecs).decode(message.payload, specs, min(message.size, 32))
                    outcomes["decoded"] += 1
            except ProtocolError:
                outcomes["refused"] += 1
            except OfframpError:
                outcomes["payload refused"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the fault that is looked for
                faults.append(f"{name}: {type(error).__name__}: {error}: {frame[:40].hex()}")
    return outcomes, faults
