"""Tickets for clients that can set no header: ``POST /v1/tickets``."""

import time
from typing import ClassVar

from pushsvc.auth.gate import TICKET_SECONDS, Gate
from pushsvc.web.cors import CrossOriginBodyHandler
from pushsvc.web.rates import RequestRates


class TicketsHandler(CrossOriginBodyHandler):
    """Gives a ticket for the token that the request comes with."""

    route: ClassVar[str] = "tickets"
    allow: ClassVar[str] = "POST, OPTIONS"
    bodiless: ClassVar[bool] = True

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, gate: Gate, rates: RequestRates, max_body: int, timeout: float
    ) -> None:
        """Take what the application passes.

        Args:
            gate: that gives tickets.
            rates: how fast each user may ask.
            max_body: most bytes of a body.
            timeout: seconds in which the body must arrive.
        """
        super().initialize(gate, max_body, timeout)
        self._gate = gate
        self._rates = rates

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        await super().admit()
        if self.request.method == "POST":
            self._rates.spend(self.claims.user, time.monotonic())

    async def post(self) -> None:
        """Give one."""
        self.body()
        ticket = await self._gate.issue(self.claims)
        self.write_json(201, {"ticket": ticket, "expires_in": TICKET_SECONDS})
