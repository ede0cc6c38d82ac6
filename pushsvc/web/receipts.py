"""What became of the notifications for which a publisher wanted receipts: ``GET /v1/receipts``."""

import asyncio
import time
from typing import ClassVar, Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, TokenCheck
from pushsvc.feeds.receipt_log import Page, ReceiptLog
from pushsvc.protocol import feeds, ids, receipts
from pushsvc.web.base import Handler
from pushsvc.web.operation import lacking
from pushsvc.web.query import Query

RECEIPTS: Final = r"/v1/receipts"

PAGE: Final = 100
"""Receipts in an answer, where the request does not say."""
MAX_PAGE: Final = 1000
MAX_WAIT: Final = 25
"""Seconds that a request may wait for a receipt."""
CHECK_SECONDS: Final = 0.5
"""Seconds between two checks meanwhile."""


class ReceiptsHandler(Handler):
    """Lists the caller's receipts.

    Args:
        receipt_log: the receipts.
        verifier: of tokens.
    """

    route: ClassVar[str] = "receipts"
    allow: ClassVar[str] = "GET"

    def initialize(self, *, receipt_log: ReceiptLog, verifier: TokenCheck) -> None:
        self._receipts = receipt_log
        self._verifier = verifier
        self._gone = False

    async def get(self) -> None:
        """Answer with those that follow a position, oldest first."""
        claims = await self.authorized()
        if SCOPE_PUBLISH not in claims.scopes:
            needed = f"reading receipts needs a token with the scope {SCOPE_PUBLISH}"
            raise lacking(needed, self.request.headers, self._verifier)
        query = Query(self.request.query)
        after = query.position("after", "an earlier answer")
        limit = query.number("limit", 1, MAX_PAGE, PAGE)
        wait = query.number("wait", 0, MAX_WAIT, 0)
        feed = feeds.receipts(claims.user, claims.namespace)
        page = await self._following(feed, after or ids.START, limit, wait)
        found = b",".join(receipts.receipt(each.id, each.body) for each in page.receipts)
        # A reader that does not say where to begin is owed nothing that is gone.
        gap = b',"gap":"%b"' % page.gap.encode() if page.gap and after is not None else b""
        self.set_header("Content-Type", "application/json")
        self.finish(
            b'{"receipts":[%b],"next":"%b"%b}\n' % (found, ids.render(page.upto).encode(), gap)
        )

    async def _following(self, feed: str, after: int, limit: int, wait: int) -> Page:
        """What follows a position, as soon as there is something or the time to wait is over."""
        deadline = time.monotonic() + wait
        while True:
            page = await self._receipts.read(feed, after, limit)
            left = deadline - time.monotonic()
            if page.receipts or page.gap or left <= 0 or self._gone or self._closed():
                return page
            await asyncio.sleep(min(left, CHECK_SECONDS))

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True

    def _closed(self) -> bool:
        admission = self.settings.get("admission")
        return admission is not None and bool(admission.closed)
