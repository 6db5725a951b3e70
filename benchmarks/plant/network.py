"""Networks between an edge and its devices: real ones between namespaces, and forwarders in user space."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import queue
import random
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from plant.processes import inside

NOWHERE = "02:00:00:de:ad:01"
"""A hardware address that nobody has: what is sent to it arrives nowhere."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_QUEUED_S = 0.4
_BURST = "4kb"


def why_no_namespaces() -> str | None:
    """Why networks cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc are not installed"
    name = f"offramp-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode != 0:
        return f"ip netns does not work: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return None


def _run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True, text=True)


def _in(namespace: str, *arguments: str) -> None:
    _run("ip", "netns", "exec", namespace, *arguments)


@contextlib.contextmanager
def _namespaces(*names: str) -> Iterator[None]:
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _in(name, "ip", "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@dataclass(frozen=True, slots=True)
class Cable:
    """Two namespaces on one cable (veth)."""

    edge: str
    device: str
    edge_address: str = "10.213.7.1"
    device_address: str = "10.213.7.2"

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing through any more from the devices up to the edge, or down to them, without a word to anybody."""
        if up:
            _in(self.device, *self._neighbour("replace", self.edge_address, NOWHERE))
        if down:
            _in(self.edge, *self._neighbour("replace", self.device_address, NOWHERE))

    def heal(self) -> None:
        """Let everything through again."""
        for namespace, peer in ((self.device, self.edge_address), (self.edge, self.device_address)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _in(namespace, *self._neighbour("del", peer))

    def rate(self, bits_per_s: float) -> None:
        """Let the devices' side send no faster than this (token bucket)."""
        bucket = ("tbf", "rate", f"{bits_per_s:.0f}bit", "burst", _BURST, "latency", f"{_QUEUED_S}s")
        _in(self.device, "tc", "qdisc", "replace", "dev", "cable", "root", *bucket)

    @staticmethod
    def _neighbour(what: str, address: str, hardware: str = "") -> tuple[str, ...]:
        at = ("lladdr", hardware, "nud", "permanent") if hardware else ()
        return ("ip", "neigh", what, address, *at, "dev", "cable")


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Lay a cable between two new namespaces; both are gone afterwards."""
    laid = Cable(f"offramp-e{os.getpid()}", f"offramp-d{os.getpid()}")
    with _namespaces(laid.edge, laid.device):
        ends = ("cable", "netns", laid.edge, "type", "veth", "peer", "name", "cable", "netns", laid.device)
        _run("ip", "link", "add", *ends)
        for namespace, address in ((laid.edge, laid.edge_address), (laid.device, laid.device_address)):
            _in(namespace, "ip", "addr", "add", f"{address}/24", "dev", "cable")
            _in(namespace, "ip", "link", "set", "cable", "up")
        yield laid


@dataclass(slots=True)
class Weather:
    """What befalls a packet on its way: lost with probability `loss`, else late by up to `jitter_s`."""

    loss: float = 0.0
    jitter_s: float = 0.0
    delay_s: float = 0.0


class Air:
    """Two namespaces whose packets pass through this process, so that it can lose and delay them (no netem needed)."""

    def __init__(self, edge: str, device: str, seed: int) -> None:
        self.edge, self.device = edge, device
        self.edge_address, self.device_address = "10.213.8.1", "10.213.8.2"
        self.weather = Weather()
        self.carried = self.lost = 0
        self._random = random.Random(seed)
        self._ends = [
            self._end(edge, self.edge_address, self.device_address),
            self._end(device, self.device_address, self.edge_address),
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    @staticmethod
    def _end(namespace: str, own: str, peer: str) -> int:
        def opened() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", b"air", _IFF_TUN | _IFF_NO_PI))
            return descriptor

        descriptor = inside(namespace, opened)
        _in(namespace, "ip", "addr", "add", own, "peer", peer, "dev", "air")
        _in(namespace, "ip", "link", "set", "air", "up")
        return descriptor

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        # Packets of one direction stay in order, as on a radio link with retransmissions.
        last_s = dict.fromkeys(self._ends, 0.0)
        other = {self._ends[0]: self._ends[1], self._ends[1]: self._ends[0]}
        with selectors.DefaultSelector() as selector:
            for descriptor in self._ends:
                selector.register(descriptor, selectors.EVENT_READ)
            number = 0
            while not self._stop.is_set():
                now_s = time.monotonic()
                due_s = waiting[0][0] - now_s if waiting else 0.05
                for key, _ in selector.select(max(0.0, min(due_s, 0.05))):
                    with contextlib.suppress(BlockingIOError):
                        packet = os.read(key.fd, 65_536)
                        self.carried += 1
                        if self._random.random() < self.weather.loss:
                            self.lost += 1
                            continue
                        late_s = self.weather.delay_s + self._random.uniform(0.0, self.weather.jitter_s)
                        target = other[key.fd]
                        last_s[target] = max(last_s[target], time.monotonic() + late_s)
                        number += 1
                        heapq.heappush(waiting, (last_s[target], number, target, packet))
                now_s = time.monotonic()
                while waiting and waiting[0][0] <= now_s:
                    _, _, target, packet = heapq.heappop(waiting)
                    with contextlib.suppress(OSError):
                        os.write(target, packet)

    def close(self) -> None:
        """Carry nothing any more."""
        self._stop.set()
        self._thread.join()
        for descriptor in self._ends:
            os.close(descriptor)


@contextlib.contextmanager
def air(seed: int = 0) -> Iterator[Air]:
    """Two new namespaces with air between them; both are gone afterwards."""
    edge, device = f"offramp-ae{os.getpid()}", f"offramp-ad{os.getpid()}"
    with _namespaces(edge, device):
        made = Air(edge, device, seed)
        try:
            yield made
        finally:
            made.close()


class Forwarder:
    """Carries TCP connections to an edge on loopback, late by up to `jitter_s`: for whoever is not root.

    TCP repairs losses, so that here a lost piece is one that comes a retransmission later, and all behind it.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self.weather = Weather()
        self.retransmission_s = 0.2
        self._target = ("127.0.0.1", port)
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                try:
                    there = socket.create_connection(self._target, timeout=5)
                except OSError:
                    here.close()
                    continue
                there.settimeout(None)
                self._open += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()
        threading.Thread(target=self._deliver, args=(pieces, target), daemon=True).start()
        due_s, piece = 0.0, b"-"
        while piece:
            piece = b""
            with contextlib.suppress(OSError):
                piece = source.recv(1400)
            late_s = self.weather.delay_s + self._random.uniform(0.0, self.weather.jitter_s)
            if self._random.random() < self.weather.loss:
                late_s += self.retransmission_s
            due_s = max(due_s, time.monotonic() + late_s)
            pieces.put((due_s, piece))

    @staticmethod
    def _deliver(pieces: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (item := pieces.get())[1]:
                time.sleep(max(0.0, item[0] - time.monotonic()))
                target.sendall(item[1])
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.close()
