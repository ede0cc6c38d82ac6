"""Tickets for clients that can set no header: ``POST /v1/tickets``."""

import time
from typing import ClassVar

from pushsvc.auth.authenticator import TICKET_SECONDS, Authenticator
from pushsvc.web.cors import CrossOriginBodyHandler
from pushsvc.web.rates import RequestRates


class TicketsHandler(CrossOriginBodyHandler):
    """Gives a ticket for the token that the request comes with.

    Args:
        authenticator: that gives tickets.
        rates: how fast each user may ask.
        max_body: most bytes of a body.
        timeout: seconds in which the body must arrive.
    """

    route: ClassVar[str] = "tickets"
    allow: ClassVar[str] = "POST, OPTIONS"
    bodiless: ClassVar[bool] = True

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, authenticator: Authenticator, rates: RequestRates, max_body: int, timeout: float
    ) -> None:
        super().initialize(authenticator, max_body, timeout)
        self._authenticator = authenticator
        self._rates = rates

    async def admit(self) -> None:
        await super().admit()
        if self.request.method == "POST":
            self._rates.spend(self.claims.caller, time.monotonic())

    async def post(self) -> None:
        self.body()
        ticket = await self._authenticator.issue(self.claims)
        self.write_json(201, {"ticket": ticket, "expires_in": TICKET_SECONDS})
