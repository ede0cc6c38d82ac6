"""A process that serves: its ports, its signals, its memory."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
import uvloop
from prometheus_client import REGISTRY, CollectorRegistry
from tornado.netutil import bind_sockets

from pushsvc import metrics
from pushsvc.admin import port as admin
from pushsvc.admin.dev import Development
from pushsvc.server.console import console_api
from pushsvc.server.worker import Worker, worker
from pushsvc.settings import PREFIX, Settings, SettingsError


class PortInUse(SettingsError):
    """Another process has the port."""


BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted."""
SAME_SIGNAL: Final = 0.5
"""Seconds in which a second signal is the first once more: a service manager signals every process
of a group, and so may the parent of some of them."""

PATIENCE: Final = 3.0
"""Seconds without Redis after which a node that starts says what it waits for."""

log = structlog.get_logger("pushsvc.run")


def bind(settings: Settings, *, shared: bool = False) -> list[socket.socket]:
    """The sockets of the public port; ``shared`` with other processes.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _named_setting("host", "port", settings.host, settings.port):
        return bind_sockets(
            settings.port, _address(settings.host), backlog=BACKLOG, reuse_port=shared
        )


def bind_admin(settings: Settings) -> list[socket.socket]:
    """The sockets of the admin port.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _named_setting("admin_host", "admin_port", settings.admin_host, settings.admin_port):
        return bind_sockets(settings.admin_port, _address(settings.admin_host))


def reserve_port(settings: Settings) -> socket.socket:
    """Keep the public port for processes that share it, without accepting on it.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _named_setting("host", "port", settings.host, settings.port):
        family = socket.getaddrinfo(settings.host, settings.port)[0][0]
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            # With "::" it holds the port of both families.
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.bind((settings.host, settings.port))
    return reserved


def _address(host: str) -> str | None:
    """What Tornado takes: it would serve "::" for IPv6 only, and None for both families.

    With a socket for each, a client on IPv4 is seen by its own address, not as ``::ffff:…``.
    """
    return None if host == "::" else host


def settle_memory() -> None:
    """Keep the garbage collector from walking what lives as long as the process.

    What was built at the start is frozen, and a connection holds no reference cycle, so the oldest
    generation is worth a look only rarely.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@asynccontextmanager
async def admin_server(
    sockets: list[socket.socket],
    report: admin.Report,
    registry: CollectorRegistry,
    settings: Settings,
    development: Development | None = None,
) -> AsyncIterator[int]:
    """The admin port, until the context ends; with what ``pushsvc dev`` serves on it.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    async with console_api(settings) as console:
        server = admin.Server(admin.application(report, registry, console, development))
        metrics.node_ready.set_function(lambda: not report()["troubles"])
        server.add_sockets(sockets)
        try:
            yield sockets[0].getsockname()[1]
        finally:
            server.stop()
            await server.close_all_connections()


class Waiting:
    """Says once, in a line, that a node that starts waits for Redis, and the way out.

    It starts all the same: where both are started at once, Redis may be the later one.

    Args:
        settings: of the node.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = str(settings.redis_url)
        self._since: float | None = None
        self._said = False

    def look(self, troubles: Iterable[str], now: float) -> None:
        """Look at why it is not ready.

        Args:
            troubles: why; before a worker has spoken these say nothing of Redis.
            now: monotonic time in seconds.
        """
        if not any("Redis" in trouble for trouble in troubles):
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= PATIENCE and not self._said:
            self._said = True
            log.warning(
                "no Redis or Valkey answers, and the node waits for it: start one there, or name"
                " another with --redis-url or PUSHSVC_REDIS_URL; `pushsvc dev` brings its own",
                redis_url=self._url,
            )


class Stop:
    """What the signals of a process ask for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set by the first: stop."""
        self.hurry = asyncio.Event()
        """Set by a later one: stop, and do not take the time to drain."""
        self._asked_at = 0.0

    def signalled(self) -> None:
        """A signal came."""
        now = time.monotonic()
        if not self.asked.is_set():
            self._asked_at = now
            self.asked.set()
        elif now - self._asked_at >= SAME_SIGNAL:
            self.hurry.set()


def until_signal() -> Stop:
    """What SIGINT, SIGTERM, and the terminal that is closed (SIGHUP) ask for from now on."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.signalled)
    return stop


Started = Callable[[int, int], None]
"""Told the public and the admin port, once both are served."""


async def _serve(settings: Settings, started: Started) -> None:
    stop = until_signal()
    sockets, admin_sockets = bind(settings), bind_admin(settings)
    async with (
        worker(settings, sockets) as running,
        admin_server(admin_sockets, running.report, REGISTRY, settings) as admin_port,
    ):
        settle_memory()
        metrics.ready.set_function(lambda: not running.troubles())
        log.info("serving", port=running.port, admin_port=admin_port, node=running.node())
        await _until_ready(running, stop.asked, Waiting(settings))
        started(running.port, admin_port)
        await stop.asked.wait()
        await running.drain(stop.hurry)
    log.info("stopped")


async def _until_ready(
    running: Worker, stop: asyncio.Event, waiting: Waiting, seconds: float = 5.0
) -> None:
    """Wait for a first lease, so that a node that says it is up is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (troubles := running.troubles()) and not stop.is_set():
                waiting.look(troubles, time.monotonic())
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def _named_setting(host_field: str, port_field: str, host: str, port: int) -> Iterator[None]:
    """Say which setting is behind an address that cannot be bound, and the way out."""
    try:
        yield
    except OSError as error:
        nowhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        variable = PREFIX + (host_field if nowhere else port_field).upper()
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            flag = "--" + port_field.replace("_", "-")
            raise PortInUse(
                variable, f"{address} is in use", f"choose another with {flag} or {variable}"
            ) from None
        raise SettingsError(variable, f"{address} cannot be bound: {error.strerror}") from None


def serve(settings: Settings, started: Started = lambda *_: None) -> None:
    """Run one worker and the admin port until a signal.

    Args:
        settings: of the node.
        started: told when it serves.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, started))
