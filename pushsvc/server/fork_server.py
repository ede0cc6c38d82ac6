"""Processes that share the memory of what they have imported.

A process that runs an event loop, and perhaps threads, cannot be forked safely. So one that does
nothing else imports what all of them need and is forked whenever another is wanted: each costs
what it writes. It imports once, however many there are, and however often they are replaced.

If it is killed, those that it forked run on, and the next one that is wanted brings another.
"""

import contextlib
import errno
import gc
import multiprocessing
import multiprocessing.resource_tracker
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, NoReturn, Self

Main = Callable[[Connection], None]
"""What a forked process does, given its end of a pipe; found by its name, as ``pickle`` does it."""

ANSWER_SECONDS: Final = 2.0
"""The fork server does nothing that takes long: one that does not answer for so long hangs."""
UNKNOWN: Final = 255
"""The exit code of a process whose parent was killed, so that nobody knows it."""

_spawn = multiprocessing.get_context("spawn")
_FORK, _WAIT = 0, 1
_REQUEST: Final = struct.Struct("=bi")
"""What is wanted, and of which process."""
_ANSWER: Final = struct.Struct("=ii")
"""The process or its exit code, and 0; or 0 and an error number."""
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGHUP})
"""What a terminal sends to all of its processes: who forks tells the others when to stop."""


class ForkedProcess:
    """A process that was forked, or is about to be: the fork server may still be importing.

    It has ended once its end of the pipe is closed, which the system does, whoever its parent is;
    and it has to end when the other end is closed.

    Args:
        server: what forks it.
        pipe: this end of its pipe, to be closed only after the exit code was asked for.
    """

    def __init__(self, server: "ForkServer", pipe: Connection) -> None:
        self._server = server
        self._pipe = pipe
        self._pid: int | None = None
        self._exit_code: int | None = None
        self._signals: list[signal.Signals] = []
        self.error = ""
        """Why it could not be forked."""

    @property
    def pid(self) -> int | None:
        """Its id; None as long as it was not forked."""
        self._server.receive()
        return self._pid

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        pid = self.pid  # which a signal may wait for
        if self._exit_code is None and _hung_up(self._pipe):
            self._exit_code = UNKNOWN if pid is None else self._server.exit_code(pid)
        return self._exit_code

    def is_alive(self) -> bool:
        """Whether it runs, or is going to."""
        return self.exitcode is None

    def terminate(self) -> None:
        """SIGTERM, at the latest as soon as it was forked."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, at the latest as soon as it was forked."""
        self._send(signal.SIGKILL)

    def join(self) -> None:
        """Wait for its end, after a signal. What cannot be forked for a while never is."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.exitcode is None:
            if self._pid is None and time.monotonic() > deadline:
                self._server.kill()
            _hung_up(self._pipe, 0.02)

    def given_up(self) -> None:
        """The fork server is gone and did not say what became of it; its pipe is to be closed."""
        self._exit_code = UNKNOWN

    def forked(self, pid: int, error: int) -> None:
        """The fork server answered."""
        self._pid, self.error = pid or None, os.strerror(error) if error else ""
        for number in self._signals if pid else []:
            _kill(pid, number)

    def _send(self, number: signal.Signals) -> None:
        if self.exitcode is not None:
            return
        if self._pid is None:
            self._signals.append(number)
            return
        _kill(self._pid, number)


class ForkServer:
    """The side of the process that wants others; a fork server is started when one is needed.

    Not safe for use by several threads at once.

    Args:
        main: what each of the processes does.
        prepare: what the fork server does once, before it forks any; by its name as well.
    """

    def __init__(self, main: Main, prepare: Callable[[], None] | None = None) -> None:
        self._main = main
        self._prepare = prepare
        self._process: BaseProcess | None = None
        self._control: socket.socket | None = None
        self._received = b""
        self._wanted: list[ForkedProcess] = []
        """What it did not answer for yet, in the order in which it will."""
        self._forked: set[int] = set()
        """The processes whose exit code it can say."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the fork server; None while there is none."""
        return None if self._process is None else self._process.pid

    def fork(self) -> tuple[ForkedProcess, Connection]:
        """A further process, and a pipe to it.

        Raises:
            OSError: there are no more descriptors, processes or memory.
        """
        self.receive()
        control = self._control or self._start()
        ours, theirs = multiprocessing.Pipe()
        try:
            with theirs:
                socket.send_fds(control, [_REQUEST.pack(_FORK, 0)], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        process = ForkedProcess(self, ours)
        self._wanted.append(process)
        return process, ours

    def receive(self, seconds: float = 0.0) -> None:
        """Read what it answered, once there is something; what is under way is given up if it died.

        Args:
            seconds: to wait at most.
        """
        while self._control is not None and _readable(self._control, seconds):
            seconds = 0.0
            answers = b""
            with contextlib.suppress(OSError):
                answers = self._control.recv(_ANSWER.size * 256)
            if not answers:
                self._ended()
                return
            self._received += answers
            while self._wanted and len(self._received) >= _ANSWER.size:
                pid, error = self._take()
                if pid:
                    self._forked.add(pid)
                self._wanted.pop(0).forked(pid, error)

    def exit_code(self, pid: int) -> int:
        """The exit code of a process that has ended.

        Args:
            pid: of a process that was forked here.
        """
        self.receive()
        if self._control is None or pid not in self._forked:
            return _adopted(pid)
        self._forked.discard(pid)
        with contextlib.suppress(OSError):
            self._control.send(_REQUEST.pack(_WAIT, pid))
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(self._received) < _ANSWER.size or self._wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
            if self._process is None:
                return _adopted(pid)
            self.receive(left)
        code, error = self._take()
        return UNKNOWN if error else code

    def kill(self) -> None:
        """SIGKILL to the fork server: it hangs. Those that it forked run on."""
        if self._process is not None:
            self._process.kill()
            self.close()

    def close(self) -> None:
        """End the fork server. Those that it forked run on."""
        self.receive()
        self._ended()

    def _take(self) -> tuple[int, int]:
        answer, self._received = self._received[: _ANSWER.size], self._received[_ANSWER.size :]
        first, second = _ANSWER.unpack(answer)
        return first, second

    def _start(self) -> socket.socket:
        control, theirs = socket.socketpair()
        process = _spawn.Process(target=_serve, args=(theirs, self._main, self._prepare))
        try:
            with theirs, _signals_blocked():
                process.start()
        except OSError:
            control.close()
            raise
        self._process, self._control = process, control
        return control

    def _ended(self) -> None:
        """Without its socket the fork server ends."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            # `join` waits for a pipe of which what was forked has an end, too: for its time-out,
            # however dead the fork server is.
            deadline = time.monotonic() + ANSWER_SECONDS
            while self._process.exitcode is None and time.monotonic() < deadline:
                time.sleep(0.005)
            self._process.kill()
            self._process.join()
        self._process = self._control = None
        self._received = b""
        for each in self._wanted:
            each.given_up()
        self._wanted.clear()
        self._forked.clear()


def _kill(pid: int, number: signal.Signals) -> None:
    """Signal a process; its id is nobody else's before its exit code was asked for."""
    with contextlib.suppress(ProcessLookupError):  # its parent was killed, and it just ended
        os.kill(pid, number)


def _readable(control: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _hung_up(pipe: Connection, seconds: float = 0.0) -> bool:
    """Whether the other end of a pipe is closed; what it said may still be there to be read."""
    poll = select.poll()
    poll.register(pipe.fileno(), 0)  # which hears of that alone
    return bool(poll.poll(1000 * seconds))


def _adopted(pid: int) -> int:
    """The exit code of a process whose parent was killed: process 1 of a container inherits it."""
    with contextlib.suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return UNKNOWN


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Have the fork server hear of no signal, and those that it forks of none from a terminal."""
    # Started by the first child, this would unblock them.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL | {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the fork server --------------------------------------------------------------------------


def _serve(control: socket.socket, main: Main, prepare: Callable[[], None] | None) -> None:
    """Fork when asked to, until who asks is gone."""
    if prepare is not None:
        prepare()
    # The collector writes into everything that it looks at, and so would part it again.
    gc.collect()
    gc.freeze()
    while True:
        try:
            request, descriptors, *_ = socket.recv_fds(control, _REQUEST.size, 1)
        except ConnectionResetError:  # an answer was not read any more
            return
        if not request:
            return
        wanted, pid = _REQUEST.unpack(request)
        try:
            answer = _wait(pid) if wanted == _WAIT else _fork(control, main, descriptors)
        except OSError as error:
            answer = 0, error.errno or 0
        with contextlib.suppress(BrokenPipeError):
            control.send(_ANSWER.pack(*answer))
        for each in descriptors:  # so whose pipe ends has been answered for
            os.close(each)


def _wait(pid: int) -> tuple[int, int]:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0


def _fork(control: socket.socket, main: Main, descriptors: list[int]) -> tuple[int, int]:
    if not descriptors:  # there were too many open already, so the system dropped it
        raise OSError(errno.EMFILE, "")
    pid = os.fork()
    if not pid:
        control.close()
        _run(main, Connection(descriptors[0]))
    return pid, 0


def _run(main: Main, pipe: Connection) -> NoReturn:
    """The life of a forked process, which never comes back from here."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        main(pipe)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - it is the whole of the process
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
