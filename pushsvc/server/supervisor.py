"""Several workers on one port, and one admin port that speaks for all of them.

Each worker is a process with its own event loop, sockets and node id; the kernel spreads new
connections over them (``SO_REUSEPORT``). The parent serves no clients: it has the workers forked,
replaces one that dies or stops reporting, and sums up their health and metrics.
"""

import asyncio
import contextlib
import importlib
import os
import select
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from pushsvc import logs, metrics
from pushsvc.admin.dev import Development, Mint, WorkerProcess
from pushsvc.server import checks, process
from pushsvc.server.fork_server import ForkedProcess, ForkServer
from pushsvc.server.verifier import verifier_of
from pushsvc.server.worker import stop_seconds, worker
from pushsvc.settings import Settings, SettingsError

REPORT_EVERY: Final = 0.5
STARTING_EVERY: Final = 0.05
"""Seconds between two reports of a worker that was not ready yet."""
SILENT_SECONDS: Final = 20.0
"""A worker that did not report for so long hangs, and is replaced."""
LATE_SECONDS: Final = 5.0
"""A parent that did not look for so long stood still itself, and so may its workers have: it gives
them their time anew."""
RESTART_SECONDS: Final = 1.0, 10.0
"""The pause before a worker is replaced: the shortest, and the longest. It doubles as long as the
replacements do not become ready."""
BAD_SETTINGS: Final = 2
"""The exit code of a process that cannot run with its settings."""


log = structlog.get_logger("pushsvc.supervisor")


def serve(
    settings: Settings, started: process.Started = lambda *_: None, mint: Mint | None = None
) -> None:
    """Run the workers and the admin port until a signal.

    Args:
        settings: of the workers.
        started: told the ports.
        mint: makes tokens for every request on the admin port, where pages can kill workers too;
            for development only.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    # Else what lies about in the working folder would be a module of theirs.
    os.environ["PYTHONSAFEPATH"] = "1"
    with (
        ForkServer(worker_process, partial(prepare, settings)) as forks,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_supervise(settings, started, mint, forks))


class _Slot:
    """One of the workers: its process, and the last report of that.

    Args:
        settings: of the worker.
        demo: the address of the demo, if there is one.
        forks: what starts it.
        keep: given what a process that ended has counted.
    """

    def __init__(
        self,
        settings: Settings,
        demo: str | None,
        forks: ForkServer,
        keep: Callable[[metrics.Counted], None],
    ) -> None:
        self._settings = settings
        self._demo = demo
        self._forks = forks
        self._keep = keep
        self.report: dict[str, Any] = {}
        self.counted: metrics.Counted = {}
        """By its metrics, up to that report."""
        self.reported_at = 0.0
        self._checked_at = 0.0
        self.refused = ""
        """Why the last process could not be forked or run with its settings; until one can."""
        self._pause = RESTART_SECONDS[0]
        self._due: float | None = None
        """When the process that ended is to be replaced; None while there is one."""
        self.process: ForkedProcess
        self._pipe: Connection
        self.start()

    def start(self) -> None:
        """Fill it with a new process.

        Raises:
            OSError: there are no more descriptors, processes or memory.
        """
        process, pipe = self._forks.fork()
        try:
            pipe.send((self._settings, self._demo))
        except OSError:
            pipe.close()
            raise
        self.process, self._pipe = process, pipe
        self._due = None
        self.report = {"troubles": [self.refused or "starting"], "connections": 0}
        self.reported_at = self._checked_at = time.monotonic()
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self.receive)

    def receive(self) -> None:
        """Read what the worker said."""
        try:
            while self._pipe.poll():
                self.report, self.counted = self._pipe.recv()
                self.reported_at = time.monotonic()
                if not self.report["troubles"]:
                    self.refused = ""
                    self._pause = RESTART_SECONDS[0]
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            # The pipe ends with the worker: the admin port says so before it is replaced. Only
            # why it could not start is still to be told.
            if "refused" not in self.report:
                self.report = {"troubles": ["ended"], "connections": 0}

    def drains(self) -> bool:
        """Whether the worker was told to stop, be it by somebody else."""
        if self._due is None:
            self.receive()
        return bool(self.report["troubles"] == ["draining"])

    def kill(self) -> None:
        """SIGKILL, and nothing that it said counts any more."""
        if self._due is not None:
            return
        self.process.kill()
        self.process.join()
        self.receive()
        self.report = {"troubles": ["killed"], "connections": 0}

    def keep_filled(self, now: float) -> None:
        """Kill a worker that hangs; replace one that has ended, after a pause.

        Args:
            now: monotonic time in seconds.
        """
        if self._due is not None:
            if now >= self._due:
                self._start_again(now)
            return
        self.receive()
        if now - self._checked_at > LATE_SECONDS:
            self.reported_at = now
        self._checked_at = now
        if now - self.reported_at > SILENT_SECONDS:
            log.error("a worker hangs and is killed", pid=self.process.pid)
            self.kill()
        if self.process.exitcode is not None:
            self._log_end()
            self.close()
            self._start_later(now)

    def _start_later(self, now: float) -> None:
        self._due = now + self._pause
        self._pause = min(2 * self._pause, RESTART_SECONDS[1])

    def _start_again(self, now: float) -> None:
        """Replace the process that ended; later if that cannot be done now."""
        try:
            self.start()
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return
        self._not_started(reason)
        self._start_later(now)

    def _not_started(self, reason: str) -> str:
        """Say why there is no process, once."""
        trouble = f"a worker cannot be started: {reason}"
        if trouble not in (self.refused, *self.report["troubles"]):
            log.error("a worker cannot be started and is tried again", reason=reason)
        self.report = {"troubles": [trouble], "connections": 0}
        return trouble

    def _log_end(self) -> None:
        """Log why the worker ended.

        What it may read anew, such as a certificate, can be bad for a while where the others still
        use what they have read before: it is tried again until it is good, which is said once.
        """
        self.receive()
        if self.process.error:
            self.refused = self._not_started(self.process.error)
            return
        if "refused" not in self.report:
            log.error(
                "a worker ended and is replaced",
                pid=self.process.pid,
                exit_code=self.process.exitcode,
            )
            return
        (reason,) = self.report["troubles"]
        if reason != self.refused:
            log.error("a worker cannot run with its settings and is tried again", reason=reason)
        self.refused = reason

    def close(self) -> None:
        with contextlib.suppress(OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()
        self._keep(self.counted)
        self.counted = {}


async def _supervise(
    settings: Settings, started: process.Started, mint: Mint | None, forks: ForkServer
) -> None:
    stop = process.until_signal()
    if mint is not None:
        # Ports that are shared can be held by several: two of these would take turns.
        for alone in process.bind(settings):
            alone.close()
    # Holding the port without listening settles its number for all workers.
    with process.reserve_port(settings) as reserved:
        port: int = reserved.getsockname()[1]
        shared = settings.model_copy(update={"port": port})
        sockets = process.bind_admin(settings)
        development = None
        if mint is not None:
            development = Development(
                mint,
                nodes=lambda: [_shown(slot) for slot in slots],
                host=settings.host,
                port=port,
                admin_host=settings.admin_host,
                admin_port=sockets[0].getsockname()[1],
                allowed_origins=settings.allowed_origins,
            )
            origins = (*settings.allowed_origins, *development.origins())
            shared = shared.model_copy(update={"allowed_origins": origins})
        registry = CollectorRegistry()
        slots: list[_Slot] = []
        total = metrics.Sum(
            lambda: [slot.counted for slot in sorted(slots, key=lambda slot: slot.reported_at)]
        )
        registry.register(total)
        registry.register(metrics.node_ready)

        def report() -> dict[str, Any]:
            workers = [slot.report for slot in slots]
            troubles = [trouble for each in workers for trouble in each["troubles"]]
            return {
                # Known here before the workers say so.
                "troubles": ["draining"] if stop.asked.is_set() else troubles,
                "connections": sum(each["connections"] for each in workers),
                "workers": workers,
            }

        demo = None if development is None else development.admin_url()
        async with process.admin_server(
            sockets, report, registry, settings, development
        ) as admin_port:
            slots.extend(_Slot(shared, demo, forks, total.keep) for _ in range(settings.workers))
            try:
                log.info("serving", port=port, admin_port=admin_port, workers=len(slots))
                # Development has a server of its own, which answers: there is none to start.
                waiting = process.Waiting(settings) if mint is None else None
                await _watch(slots, stop.asked, waiting, lambda: started(port, admin_port))
            finally:
                # A moment more than a worker has: it is killed for hanging only.
                await _stop(slots, stop.hurry, stop_seconds(settings) + REPORT_EVERY)
    log.info("stopped")


async def _watch(
    slots: list[_Slot],
    stop: asyncio.Event,
    waiting: process.Waiting | None,
    ready: Callable[[], None],
) -> None:
    """Replace workers that die or hang, until told to stop."""
    announced = False
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), REPORT_EVERY if announced else STARTING_EVERY)
        troubles = [trouble for slot in slots for trouble in slot.report["troubles"]]
        if not announced and not troubles:
            announced = True
            ready()
        if not announced and waiting is not None:
            waiting.look(troubles, time.monotonic())
        for slot in slots:
            if slot.process.exitcode == BAD_SETTINGS and not announced:
                slot.receive()
                raise SettingsError(*slot.report["refused"])  # the others would say the same
            if stop.is_set():
                return
            slot.keep_filled(time.monotonic())


def _shown(slot: _Slot) -> WorkerProcess:
    """A worker, as ``pushsvc dev`` shows it."""
    alive = slot.process.is_alive()
    return WorkerProcess(
        node=slot.report.get("node"),
        pid=slot.process.pid if alive else None,
        ready=alive and not slot.report["troubles"],
        kill=slot.kill,
    )


async def _stop(slots: list[_Slot], hurry: asyncio.Event, seconds: float) -> None:
    """Have all workers drain, and wait for them."""
    # A service manager signals every process of a group. A worker that drains already would take
    # the signal of a parent that comes late for a second one, which hurries it.
    _terminate([slot for slot in slots if not slot.drains()])
    hurried = False
    deadline = time.monotonic() + seconds
    while any(slot.process.is_alive() for slot in slots) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        if hurry.is_set() and not hurried:
            hurried = True
            _terminate(slots)
    for slot in slots:
        if slot.process.is_alive():
            log.error("a worker did not stop in time and is killed", pid=slot.process.pid)
            slot.process.kill()
            slot.process.join()
        slot.close()


def _terminate(slots: list[_Slot]) -> None:
    for slot in slots:
        if slot.process.is_alive():
            slot.process.terminate()


def prepare(settings: Settings) -> None:
    """What the workers share beyond the modules that are imported here.

    Libraries that make something at the first use do so here once, and not in each worker.

    Args:
        settings: of the workers.
    """
    # What cannot be used is said by the workers.
    with contextlib.suppress(ImportError, ValueError):
        if settings.tracing != "off":
            importlib.import_module("pushsvc.server.telemetry")
    with contextlib.suppress(SettingsError):
        verifier_of(settings)
        checks.redis_access(settings)


def worker_process(pipe: Connection) -> None:
    """The life of one worker process.

    Args:
        pipe: says with which settings, and where the demo is; then the worker reports there.
    """
    try:
        settings, demo = pipe.recv()
    except EOFError:  # the parent is gone
        return
    logs.configure(settings.log_format, settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, pipe, demo))
    except SettingsError as error:
        # Told by the parent, once for all workers.
        report = {
            "troubles": [str(error)],
            "connections": 0,
            "refused": (error.variable, error.message, error.advice),
        }
        # It never served: its gauges say nothing, and least of all when a certificate expires.
        pipe.send((report, {}))
        raise SystemExit(BAD_SETTINGS) from None


def _tell(pipe: Connection, report: dict[str, Any]) -> None:
    """Tell the parent how the worker does, and what it has counted since it started.

    A parent that stands still and reads nothing must not hold up the worker: what is told later
    holds all of it.
    """
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLOUT)
    if poll.poll(0):
        with contextlib.suppress(OSError):
            pipe.send((report, metrics.counted()))


async def _serve(settings: Settings, pipe: Connection, demo: str | None) -> None:
    stop = process.until_signal()
    loop = asyncio.get_running_loop()

    def orphaned() -> None:
        loop.remove_reader(pipe.fileno())  # it stays readable
        stop.signalled()

    # The pipe ends with the parent: a worker does not outlive it.
    loop.add_reader(pipe.fileno(), orphaned)
    async with worker(settings, process.bind(settings, shared=True), demo) as running:
        process.settle_memory()
        metrics.ready.set_function(lambda: not running.troubles())
        pause = STARTING_EVERY
        while not stop.asked.is_set():
            report = running.report()
            if not report["troubles"]:
                pause = REPORT_EVERY
            _tell(pipe, report)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.asked.wait(), pause)
        draining = asyncio.create_task(running.drain(stop.hurry))
        await asyncio.sleep(0)  # so that the first report says that it drains
        while not draining.done():
            _tell(pipe, running.report())
            await asyncio.wait([draining], timeout=REPORT_EVERY)
        await draining
    # Once more: what was counted on the way out is lost otherwise.
    _tell(pipe, {"troubles": ["draining"], "connections": 0})
