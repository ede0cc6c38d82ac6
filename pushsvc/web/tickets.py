"""Tickets for clients that can set no header: ``POST /v1/tickets``."""

import time
from typing import ClassVar

from pushsvc.auth.authenticator import TICKET_SECONDS, Authenticator
from pushsvc.auth.tokens import Claims
from pushsvc.web.cors import Origins
from pushsvc.web.operation import Admitted, Answer, Request, TokenOperation, json_answer
from pushsvc.web.rates import RequestRates


class TicketsOperation(TokenOperation):
    """Gives a ticket for the token that the request comes with.

    Args:
        authenticator: that gives tickets.
        rates: how fast each user may ask.
        max_body: most bytes of a body.
        origins: which pages may call.
    """

    route: ClassVar[str] = "tickets"
    allow: ClassVar[str] = "POST, OPTIONS"
    bodiless: ClassVar[bool] = True

    def __init__(
        self, *, authenticator: Authenticator, rates: RequestRates, max_body: int, origins: Origins
    ) -> None:
        super().__init__(authenticator, max_body=max_body, origins=origins)
        self._authenticator = authenticator
        self._rates = rates

    def permit(self, request: Request, claims: Claims) -> None:  # noqa: ARG002 - the interface
        """Account for the request."""
        self._rates.spend(claims.caller, time.monotonic())

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        """Answer with a ticket."""
        ticket = await self._authenticator.issue(admitted.claims)
        return json_answer(201, {"ticket": ticket, "expires_in": TICKET_SECONDS})
