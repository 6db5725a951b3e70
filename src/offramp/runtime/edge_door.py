"""Whom an edge lets in: with certificates, devices that show their own; in plain text whoever comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError
from offramp.runtime.edge_streams import Streams
from offramp.runtime.protocol import Refusal, Refused
from offramp.runtime.transport import peer_of

if TYPE_CHECKING:
    from offramp.runtime.certificates import Identity, RevokedList

_LOG = logging.getLogger(__name__)


class Door:
    """Holds what devices claim against the certificates that they show."""

    def __init__(self, identity: Identity | None, revoked: RevokedList | None) -> None:
        self._encrypted = identity is not None
        self._revoked = revoked

    def identify(self, context: Any, streams: Streams) -> Refused | None:
        """Why a device is not let in; else its certificate is kept with its streams."""
        if not self._encrypted:
            return None
        peer = peer_of(context)
        if peer is None or peer[0] != streams.device:
            claimed = f"{streams.device} with the certificate of {peer[0] if peer else 'nobody'}"
            return Refused(Refusal.IDENTITY, claimed[:200], "a device's own certificate", "use its own --id")
        streams.certificate = peer[1]
        if self._revoked is not None and self._revoked.holds(peer[1]):
            return Refused(Refusal.REVOKED, streams.device, "a certificate in force", "issue it a new one")
        return None

    def is_owner(self, context: Any, streams: Streams) -> bool:
        """Whether another connection comes from the device that has opened a session."""
        return not self._encrypted or peer_of(context) == (streams.device, streams.certificate)

    def revoked_since(self, sessions: Mapping[bytes, Streams]) -> list[bytes]:
        """The sessions whose certificates have been revoked since the last call."""
        if self._revoked is None:
            return []
        try:
            changed = self._revoked.refresh()
        except (OSError, OfframpError) as error:
            _LOG.error("the list of revoked certificates cannot be read, the last one stays: %s", error)
            return []
        return [
            token
            for token, streams in sessions.items()
            if changed and self._revoked.holds(streams.certificate)
        ]
