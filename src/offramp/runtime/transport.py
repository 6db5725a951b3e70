"""gRPC as both sides use it: addresses, settings, and what an error on a stream means."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from offramp.errors import OfframpError
from offramp.runtime.protocol import CONTROL_BYTES

if TYPE_CHECKING:
    from offramp.runtime.certificates import Identity

SERVICE = "offramp.Edge"
CONTROL = "Control"
TENSORS = "Tensors"

OWN_POLLING = (1, 80), (1, 85)
"""Versions of gRPC whose polling by threads of their own is on, can be turned off, and was measured against it."""

HANDSHAKE_MS = 3_000
"""How long a new connection may take until its first HTTP/2 frame."""
IDLE_MS = 10_000
"""How long a connection may be without a stream."""

Options = list[tuple[str, Any]]

_PINGS: Options = [
    # A hung peer is noticed within these; the other side must not count our pings as abuse.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    # A compressed frame could be a bomb: without this filter it arrives as it is, and is no message.
    ("grpc.per_message_decompression", 0),
    ("grpc.per_message_compression", 0),
]


def poll_in_queues(environment: MutableMapping[str, str], version: str) -> None:
    """Have gRPC poll where it waits for events, and not in threads of its own, one of which hands on to another.

    What goes there and back between two processes takes 85 us so and 214 us otherwise, and 480 and 720 us when both
    have been idle. gRPC takes the setting from the environment when it is first used; one that is there already stays.
    """
    first, last = OWN_POLLING
    if first <= tuple(int(part) for part in version.split(".")[:2]) <= last:
        environment.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")


poll_in_queues(os.environ, grpc.__version__)


def server_options(max_frame_bytes: int, max_connections: int) -> Options:
    """For an edge whose frames take at most so many bytes."""
    return [
        *_PINGS,
        ("grpc.so_reuseport", 0),  # a second edge on the same port is a mistake, not a helper
        # Who connects and says nothing must not hold the place of one who would.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_receive_message_length", max(max_frame_bytes, CONTROL_BYTES)),
        ("grpc.max_send_message_length", -1),
    ]


def channel_options(max_frame_bytes: int) -> Options:
    """For a device. Every channel is a connection of its own."""
    return [
        *_PINGS,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", max(max_frame_bytes, CONTROL_BYTES)),
        ("grpc.max_send_message_length", -1),
    ]


def open_channel(address: str, max_frame_bytes: int, identity: Identity | None) -> grpc.aio.Channel:
    """One connection to an edge; plain text without an identity."""
    options = channel_options(max_frame_bytes)
    if identity is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)


def listen(server: grpc.aio.Server, address: str, identity: Identity | None) -> int:
    """Bind a server; the port, 0 if it cannot be bound. With an identity, peers must show a certificate."""
    try:
        if identity is None:
            return int(server.add_insecure_port(address))
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
        )
        return int(server.add_secure_port(address, credentials))
    except RuntimeError:
        return 0


def peer_of(context: Any) -> tuple[str, bytes] | None:
    """Common name and certificate (PEM) of who is on the other side; None in plain text."""
    shown = context.auth_context()
    names, certificates = shown.get("x509_common_name"), shown.get("x509_pem_cert")
    if not names or not certificates:
        return None
    return names[0].decode(errors="replace"), bytes(certificates[0])


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(field: str, host: str, *, encrypted: bool, insecure: bool) -> None:
    """Plain text may leave this machine only if that was said. Raises OfframpError."""
    if encrypted and insecure:
        raise OfframpError("insecure", True, "contradicts --certs", "give one of them")
    if not is_loopback(host) and not encrypted and not insecure:
        raise OfframpError(
            field, host, "off loopback needs mutual TLS", "give --certs DIR, or say --insecure to go without"
        )


def split_address(field: str, address: str) -> tuple[str, int]:
    """HOST:PORT in its two parts. Raises OfframpError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise OfframpError(field, address, "HOST:PORT with a port in 1..65535", "write it as 127.0.0.1:7077")
    return host, int(port)
