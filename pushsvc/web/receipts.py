"""What became of the notifications for which a publisher wanted receipts: ``GET /v1/receipts``."""

import asyncio
import re
import time
from typing import ClassVar, Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest
from pushsvc.feeds.receipt_log import Page, ReceiptLog
from pushsvc.protocol import feeds, ids, receipts
from pushsvc.web.base import Handler, authorize

RECEIPTS: Final = r"/v1/receipts"

PAGE: Final = 100
"""Receipts in an answer, where the request does not say."""
MAX_PAGE: Final = 1000
MAX_WAIT: Final = 25
"""Seconds that a request may wait for a receipt."""
LOOK: Final = 0.5
"""Seconds between two looks meanwhile."""

_digits = re.compile(r"[0-9]{1,4}").fullmatch


class ReceiptsHandler(Handler):
    """Lists the caller's receipts."""

    route: ClassVar[str] = "receipts"
    allow: ClassVar[str] = "GET"

    def initialize(self, *, receipt_log: ReceiptLog, verifier: TokenCheck) -> None:
        """Take what the application passes.

        Args:
            receipt_log: the receipts.
            verifier: of tokens.
        """
        self._receipts = receipt_log
        self._verifier = verifier
        self._gone = False

    async def get(self) -> None:
        """Answer with those that follow a position, oldest first."""
        claims = await authorize(self.request, self._verifier)
        if SCOPE_PUBLISH not in claims.scopes:
            raise Forbidden(f"reading receipts needs a token with the scope {SCOPE_PUBLISH}")
        after = self._after()
        page = await self._following(feeds.receipts(claims.user), after or ids.START)
        found = b",".join(receipts.receipt(each.id, each.body) for each in page.receipts)
        # Who does not say where to begin is owed nothing that is gone.
        gap = b',"gap":"%b"' % page.gap.encode() if page.gap and after is not None else b""
        self.set_header("Content-Type", "application/json")
        self.finish(
            b'{"receipts":[%b],"next":"%b"%b}\n' % (found, ids.render(page.upto).encode(), gap)
        )

    async def _following(self, feed: str, after: int) -> Page:
        """What follows a position, as soon as there is something or nobody can wait any more."""
        limit, wait = self._number("limit", 1, MAX_PAGE, PAGE), self._number("wait", 0, MAX_WAIT, 0)
        deadline = time.monotonic() + wait
        while True:
            page = await self._receipts.read(feed, after, limit)
            left = deadline - time.monotonic()
            if page.receipts or page.gap or left <= 0 or self._gone or self._closed():
                return page
            await asyncio.sleep(min(left, LOOK))

    def on_connection_close(self) -> None:
        """Nobody waits any more."""
        super().on_connection_close()
        self._gone = True

    def _closed(self) -> bool:
        admission = self.settings.get("admission")
        return admission is not None and bool(admission.closed)

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """A value of the query."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name or 'the query'} is not UTF-8") from None

    def _query(self, name: str) -> str | None:
        values = self.get_query_arguments(name, strip=False)
        if len(values) > 1:
            raise InvalidRequest(f'"{name}" is there {len(values)} times: send it once')
        return values[0] if values else None

    def _after(self) -> int | None:
        after = self._query("after")
        if after is None:
            return None
        try:
            return ids.parse_untrusted(after)
        except InvalidRequest:
            raise InvalidRequest('"after" is the "next" of an earlier answer') from None

    def _number(self, name: str, least: int, most: int, usual: int) -> int:
        text = self._query(name)
        if text is None:
            return usual
        if not _digits(text) or not least <= int(text) <= most:
            raise InvalidRequest(f'"{name}" is a number from {least} to {most}')
        return int(text)
