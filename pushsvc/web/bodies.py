"""What the bodies of all requests of a worker may take together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims
from pushsvc.errors import Overloaded, RateLimited

AT_ONCE: Final = 16
"""Most requests of one client whose bodies are waited for; those that come whole do not count."""


class Bodies:
    """The bytes of all bodies that are being read, or whose request is not answered yet.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self._left = self._most = most
        self._awaited: dict[str, int] = {}

    def take(self, size: int) -> None:
        """Account for some that have come.

        Raises:
            Overloaded: these are too many.
        """
        if size > self._left:
            raise Overloaded(
                f"the bodies of all requests have over {self._most} bytes: retry", retry_after=2.0
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Account for some that are needed no more."""
        self._left += size

    @contextmanager
    def awaited(self, claims: Claims) -> Iterator[None]:
        """Count a request whose body is waited for while the context lasts.

        Each takes a place, for as long as its sender likes within the time for a body. A backend
        may have as many as there are.

        Args:
            claims: of its sender.

        Raises:
            RateLimited: too many of a client's are waited for.
        """
        if SCOPE_PUBLISH in claims.scopes:
            yield
            return
        caller = claims.caller
        others = self._awaited.get(caller, 0)
        if others >= AT_ONCE:
            raise RateLimited(
                f"{AT_ONCE} requests of this user have unfinished bodies: send those first",
                retry_after=2.0,
            )
        self._awaited[caller] = others + 1
        try:
            yield
        finally:
            self._awaited[caller] -= 1
            if not self._awaited[caller]:
                del self._awaited[caller]
