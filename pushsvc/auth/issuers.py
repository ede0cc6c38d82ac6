"""Several issuers: a token selects its own by ``iss``, before any key is looked at."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pushsvc.auth.claims import Rules, shown
from pushsvc.auth.tokens import Claims, Verifier, payload_of
from pushsvc.codes import Close
from pushsvc.errors import InvalidToken


class Issuer(NamedTuple):
    """One issuer: what its tokens are read by, and what verifies them."""

    rules: Rules
    verifier: Verifier


class Issuers:
    """Verifies tokens of several issuers, each with keys and expectations of its own.

    No key is ever tried on a token of another issuer: the text of ``iss`` selects one verifier,
    which checks the signature with its keys alone, and then that ``iss`` again.

    Args:
        on_gone: given the issuers whose tokens are good no longer, as ``Claims.issuer`` has them,
            once they are refused here, each with the code to close their connections with.
    """

    def __init__(self, on_gone: Callable[[Mapping[str, Close]], None] = lambda _: None) -> None:
        self.on_gone = on_gone
        self.namespaces: Mapping[str, str] = {}
        """See ``TokenCheck.namespaces``."""
        self._by_iss: dict[str | None, Issuer] = {}

    def use(self, issuers: Sequence[Issuer]) -> None:
        """Trust these from now on, and no others."""
        before = self.namespaces
        self._by_iss = {each.rules.issuer: each for each in issuers}
        self.namespaces = {each.rules.identity: each.rules.namespace for each in issuers}
        gone = {}
        for issuer, namespace in before.items():
            if issuer not in self.namespaces:
                gone[issuer] = Close.REVOKED
            elif self.namespaces[issuer] != namespace:
                # Its tokens are good, but its users are others now: to be found by coming back.
                gone[issuer] = Close.GOING_AWAY
        if gone:
            self.on_gone(gone)

    async def verify(self, token: str) -> Claims:
        """See ``TokenCheck.verify``."""
        return await self._issuer_of(token).verify(token)

    def verify_cached(self, token: str) -> Claims | None:
        """See ``TokenCheck.verify_cached``."""
        return self._issuer_of(token).verify_cached(token)

    def looked_at(self, token: str) -> str:
        """See ``TokenCheck.looked_at``."""
        return self._issuer_of(token).looked_at(token)

    def _issuer_of(self, token: str) -> Verifier:
        payload = payload_of(token)
        iss = payload.get("iss")
        # One without ``iss`` is not one whose ``iss`` is null.
        if isinstance(iss, str) or "iss" not in payload:
            found = self._by_iss.get(iss)
            if found is not None:
                return found.verifier
        told = f"held {shown(iss)}" if "iss" in payload else "is missing"
        raise InvalidToken(
            "the iss claim must be exactly the issuer of an entry in AUTH_FILE, a slash at its end "
            f"included: it {told}"
        )
