"""Tickets for clients that can set no header: ``POST /v1/tickets``."""

from typing import ClassVar

from pushsvc.auth.gate import TICKET_SECONDS, Gate
from pushsvc.web.cors import CrossOriginBodyHandler


class TicketsHandler(CrossOriginBodyHandler):
    """Gives a ticket for the token that the request comes with."""

    route: ClassVar[str] = "tickets"
    allow: ClassVar[str] = "POST, OPTIONS"
    bodiless: ClassVar[bool] = True

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, gate: Gate, max_body: int, timeout: float
    ) -> None:
        """Take what the application passes."""
        super().initialize(gate, max_body, timeout)
        self._gate = gate

    async def post(self) -> None:
        """Give one."""
        self.body()
        ticket = await self._gate.issue(self.claims)
        self.write_json(201, {"ticket": ticket, "expires_in": TICKET_SECONDS})
