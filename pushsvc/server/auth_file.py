"""The issuers of a file, read again when it, or a file that it names, changes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from pushsvc import metrics
from pushsvc.auth.claims import Reader
from pushsvc.auth.issuer_table import MAX_FILE, AuthFileError, Entry, Source, parse, wrong
from pushsvc.auth.issuers import Issuer, Issuers
from pushsvc.auth.jwks import Get, Jwks, discovered, jwks_at
from pushsvc.auth.keys import MAX_PEM, KeyConfigError, public_keys, secret_keys
from pushsvc.auth.tokens import KeySource, Verifier, key_troubles
from pushsvc.settings.secret_files import SecretFileError, read_secret
from pushsvc.web.certificates import fingerprint

TICK_SECONDS: Final = 1.0
"""Seconds between two looks at the files."""

log = structlog.get_logger("pushsvc.issuers")

_Stamps = dict[Path, tuple[int, ...] | None]
_Held = tuple[str, Source, tuple[bytes, ...], KeySource]
"""The name of an entry, its source of keys, what stood in its files, and the keys."""


class AuthFile(Issuers):
    """The issuers of a file, as it is now.

    Whatever replaces a file shows in what the system says of it: a rename, a write, or the symbolic
    link that Kubernetes swaps in a mounted Secret. A file that cannot be used changes nothing: the
    issuers of before stay, and log and metric say so.

    Args:
        path: of the file; those that it names are beside it unless their paths are absolute.
        get: gets what issuers publish.
        clock: the time in Unix seconds.

    Raises:
        AuthFileError: the file cannot be used.
    """

    def __init__(self, path: Path, get: Get, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._path = path
        self._get = get
        self._clock = clock
        self._held: dict[str, _Held] = {}
        """By ``Rules.identity``."""
        self._ready = False
        self._started = False
        self._retired: list[KeySource] = []
        self._tried: _Stamps = {}
        """The files of the last reading, as they were just before it."""
        self._load()
        self._found = self._tried

    def start(self) -> None:
        """See ``Verifier.start``."""
        self._started = True
        for *_, keys in self._held.values():
            keys.start()

    def sources(self) -> list[KeySource]:
        """See ``Verifier.sources``."""
        return [keys for *_, keys in self._held.values()]

    def troubles(self) -> list[str]:
        """See ``Verifier.troubles``."""
        # Whoever was ready stays so: every node reads the same file, and all of them would go.
        if self._ready:
            return []
        troubles = key_troubles(self.sources())
        self._ready = not troubles
        return troubles

    def tick(self) -> None:
        """Take a new file over; to be called every ``TICK_SECONDS``."""
        before, self._found = self._found, {path: fingerprint(path) for path in self._tried}
        # Several files are not replaced at once, so they are read when they have come to rest.
        if self._found == self._tried or self._found != before:
            return
        try:
            self._load()
        except AuthFileError as error:
            self._refused(error.message)
        except Exception:
            # A file must not end a worker, and every worker reads the same one.
            log.exception("the file of issuers met an unexpected error")
            self._refused("an unexpected error, which the log has")
        else:
            metrics.auth_file_refused.set(0)
            log.info(
                "the file of issuers was read again",
                issuers=sorted(name for name, *_ in self._held.values()),
            )
        self._found = self._tried

    async def follow(self) -> None:
        """Take new files over until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick()
            await self._close_retired()

    async def aclose(self) -> None:
        """Close all sources of keys."""
        for *_, keys in self._held.values():
            await keys.aclose()
        await self._close_retired()

    async def _close_retired(self) -> None:
        """Close the sources of keys that nothing uses any more."""
        while self._retired:
            await self._retired.pop().aclose()

    def _refused(self, reason: str) -> None:
        metrics.auth_file_refused.set(1)
        log.error(
            "the file of issuers cannot be used, the one before stays in force",
            file=str(self._path),
            reason=reason,
            issuers=sorted(name for name, *_ in self._held.values()),
        )

    def _load(self) -> None:
        """Read the file and use it; an error leaves everything as it was."""
        if self._held:
            self.troubles()
        self._tried = {}
        held: dict[str, _Held] = {}
        issuers = []
        for entry in parse(self._read(self._path, MAX_FILE)):
            keys = self._keys(entry)
            held[entry.rules.identity] = keys
            issuers.append(
                Issuer(
                    entry.rules,
                    Verifier(
                        keys[-1],
                        algorithms=keys[-1].algorithms,
                        reader=Reader(entry.rules),
                        clock=self._clock,
                    ),
                )
            )
        before, self._held = self._held, held
        kept = {id(keys) for *_, keys in held.values()}
        self.use(issuers)
        for *_, old in before.values():
            if id(old) not in kept:
                self._retired.append(old)
        if self._started:
            self.start()

    def _keys(self, entry: Entry) -> _Held:
        """The keys of an entry: those that its issuer had, where it names the same.

        What was fetched stays until another address has brought some, and is never shared with
        another issuer.
        """
        name, source = entry.rules.name, entry.source
        contents = self._contents(name, source)
        old = self._held.get(entry.rules.identity)
        if old is not None and old[:-1] == (name, source, contents):
            return old
        try:
            keys = self._source(entry, contents)
        except KeyConfigError as error:
            key = source.kind if error.part == "keys" else "algorithms"
            raise wrong(name, key, error.message) from None
        if old is not None and isinstance(keys, Jwks) and isinstance(old[-1], Jwks):
            keys.take_over(old[-1])
        return name, source, contents, keys

    def _source(self, entry: Entry, contents: tuple[bytes, ...]) -> KeySource:
        source, clock, get = entry.source, self._clock, self._get
        algorithms, setting = source.algorithms, entry.rules.setting(source.kind)
        match source.kind:
            case "jwks_url":
                return jwks_at(source.values[0], get, algorithms, setting=setting, clock=clock)
            case "discovery":
                return discovered(source.values[0], get, algorithms, setting=setting, clock=clock)
            case "public_key_file":
                return public_keys(contents[0], algorithms, setting=setting, clock=clock)
            case _:
                secrets = [secret.decode() for secret in contents]
                return secret_keys(secrets, algorithms, setting=setting)

    def _contents(self, name: str, source: Source) -> tuple[bytes, ...]:
        """What stands in the files of a source, or beside it."""
        match source.kind:
            case "secret" | "secrets":
                return tuple(secret.encode() for secret in source.values)
            case "public_key_file" | "secret_file":
                return tuple(self._beside(name, source, at) for at in range(len(source.values)))
            case _:
                return ()

    def _beside(self, name: str, source: Source, at: int) -> bytes:
        """What stands in a file that an entry names."""
        file = self._path.parent / source.values[at]
        try:
            if source.kind == "public_key_file":
                return self._read(file, MAX_PEM)
            self._try(file)
            return read_secret(file).encode()
        except (AuthFileError, SecretFileError) as error:
            # Without its name: that may be a secret, written into the wrong place.
            raise wrong(name, f"{source.kind}[{at}]", str(error)) from None

    def _read(self, file: Path, most: int) -> bytes:
        """The beginning of a file, one byte longer than what it may have."""
        self._try(file)
        try:
            with file.open("rb") as opened:
                return opened.read(most + 1)
        except OSError as error:
            raise AuthFileError(f"cannot be read: {error.strerror}") from None

    def _try(self, file: Path) -> None:
        """Note a file as it is before it is read."""
        try:
            self._tried[file] = fingerprint(file)
        except ValueError:  # a null byte, or what has no encoding
            raise AuthFileError("cannot be read: it is no path") from None
