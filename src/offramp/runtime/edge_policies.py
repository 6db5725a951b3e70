"""Making the policy for the devices that are connected, beside the edge's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from offramp.errors import OfframpError
from offramp.options import System
from offramp.policies import Live, Policy, notice_of
from offramp.runtime.background import background_pool
from offramp.runtime.edge_core import EdgeCore

_LOG = logging.getLogger(__name__)

MakePolicy = Callable[[System, int], Policy]


class PolicyMaking:
    """Makes policies with `make`, in a thread of its own.

    `made` is told how many devices there are whenever their policy has been made, or has failed to be, and why another
    decides in its place, if one does.
    """

    def __init__(
        self,
        core: EdgeCore,
        make: MakePolicy,
        clock: Callable[[], float],
        made: Callable[[int, str | None], None],
    ) -> None:
        self._core = core
        self._make = make
        self._clock = clock
        self._made = made
        self._pool = background_pool("edge-policy")

    async def remake(self, version: int, system: System) -> None:
        """Make the policy for a system and hand it to the core, unless that wants another by then."""

        def make() -> Policy | None:
            # Devices may have come and gone while others' policies were being made.
            return self._make(system, version) if self._core.wants_policy(version) else None

        try:
            policy = await asyncio.get_running_loop().run_in_executor(self._pool, make)
        except OfframpError as error:
            _LOG.error("the policy cannot be made for these devices, the interim one decides: %s", error)
            notice: str | None = f"myopic decides: {error}"
        except Exception as error:  # noqa: BLE001 - a policy may be anybody's: without it the interim one decides
            _LOG.exception("the policy cannot be made for these devices, the interim one decides")
            notice = f"myopic decides: {type(error).__name__}: {error}"
        else:
            if policy is None:
                return
            if isinstance(policy, Live):
                policy.go_live(self._pool, self._clock)
            self._core.policy_made(version, policy)
            notice = notice_of(policy)
        if self._core.wants_policy(version):
            self._made(system.devices, notice)

    def stop(self) -> None:
        """Make no more, and wait for the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
