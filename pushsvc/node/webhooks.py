"""Sends receipts on, to one address, as Standard Webhooks.

Each publisher's receipts go in order and at least once: one node at a time has a feed, and keeps in
Redis how far it got. What cannot be delivered is tried again with growing pauses, for three days.
"""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.iostream import StreamClosedError

from pushsvc import metrics
from pushsvc.errors import PushError
from pushsvc.feeds.receipt_log import Page, Position, ReceiptLog, Stored
from pushsvc.feeds.work_queue import Lease, WorkQueue
from pushsvc.protocol import ids, receipts, webhooks
from pushsvc.protocol.feeds import name_of, namespace_of
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.protocol.webhooks import Verdict

POLL: Final = 1.0
"""Seconds between two looks at what is to be sent."""
AT_ONCE: Final = 8
"""Feeds that a node sends on at the same time."""
PAGE: Final = 64
"""Receipts read at once."""
TURN: Final = 20.0
"""Seconds after which a node gives a feed back, so that others get their turn."""
CONNECT_TIMEOUT: Final = 5.0
REQUEST_TIMEOUT: Final = 15.0
"""Seconds for an attempt."""
HOLD: Final = TURN + REQUEST_TIMEOUT + 15.0
"""Seconds after which a feed that a node took is taken by another."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer's body, which nobody reads."""
CLOSING: Final = 3.0
"""Seconds that attempts have to end when the node stops."""

log = structlog.get_logger("pushsvc.webhooks")


class Next(NamedTuple):
    """When a feed is worth another look: seconds from now, None if there is nothing more."""

    wait: float | None
    rest: bool = False
    """Not before that, whatever comes: the receiver is to be left alone."""


class Webhooks:
    """Sends receipts on.

    Args:
        url: where to.
        secret: what signs them, as in the settings.
        work: the feeds that hold receipts to be sent.
        receipt_log: the receipts.
        redis_time: now by Redis time, as the receipts' ids are, in Unix seconds.
        clock: Unix seconds.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        work: WorkQueue,
        receipt_log: ReceiptLog,
        redis_time: Callable[[], float],
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._address = hashlib.sha256(url.encode()).hexdigest()[:32]
        self._secret = webhooks.secret_bytes(secret)
        self._work = work
        self._log = receipt_log
        self._redis_time = redis_time
        self._clock = clock
        self._chance = chance
        self._client = AsyncHTTPClient(
            force_instance=True, max_clients=AT_ONCE, max_body_size=MAX_ANSWER
        )
        # The path may be as good as a password.
        self._told = log.bind(host=urlsplit(url).hostname)
        self._closing = False
        self._gone = False
        self._tasks: asyncio.TaskGroup
        self._running: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to send."""
        self._tasks = tasks
        self._running = tasks.create_task(self._run(), name="webhooks")

    async def aclose(self) -> None:
        """Stop, once the attempts under way have ended or taken too long."""
        self._closing = True
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        if self._sending:
            await asyncio.wait(self._sending, timeout=CLOSING)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._client.close()

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                await self._round()
            except PushError as error:
                if not failing:
                    self._told.warning("webhooks cannot be sent", error=error.detail)
                failing = True
            else:
                failing = False
            await asyncio.sleep(POLL)

    async def _round(self) -> None:
        """Take feeds that are due, as many as this node has room for."""
        gone = await self._log.gone(self._address)
        if gone and not self._gone:
            self._told.error(
                "webhooks are disabled: the address answered 410; set another PUSHSVC_WEBHOOK_URL"
            )
        self._gone = gone
        room = AT_ONCE - len(self._sending)
        if gone or not room:
            return
        for lease in await self._work.lease(room):
            task = self._tasks.create_task(self._send(lease), name="webhook")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, lease: Lease) -> None:
        following = Next(0.0)
        try:
            following = await self._send_on(lease.feed)
        except PushError as error:
            # What was sent and could not be written down is sent again: at least once.
            self._told.warning("webhooks are interrupted", error=error.detail)
        finally:
            with contextlib.suppress(PushError):
                await self._give_back(lease, following)

    async def _give_back(self, lease: Lease, following: Next) -> None:
        if following.rest and following.wait is not None:
            await self._work.rest(lease, following.wait)
        else:
            await self._work.release([(lease, following.wait)])

    async def _send_on(self, feed: str) -> Next:
        """Send the receipts of one feed, in order, until one cannot be delivered or time is up."""
        turn = self._clock() + TURN
        position = await self._log.position(feed)
        while True:
            page = await self._log.read(feed, position.sent, PAGE)
            if page.gap:
                metrics.webhooks.labels("trimmed").inc()
                self._told.warning("receipts were trimmed before they could be sent", feed=feed)
            if not page.receipts:
                if page.upto <= position.sent:
                    return Next(None)
                position = position._replace(sent=page.upto)  # what is there is past its retention
            for receipt in page.receipts:
                if self._closing or self._clock() >= turn:
                    return Next(0.0)
                verdict, asked = await self._attempt(feed, receipt)
                if verdict is Verdict.GONE:
                    await self._log.set_gone(self._address)
                    return Next(0.0)
                if verdict is Verdict.RETRY:
                    return await self._failed(feed, position, page, asked)
                position = Position(receipt.id, 0)
                await self._log.moved(feed, position)

    async def _failed(self, feed: str, position: Position, page: Page, asked: float) -> Next:
        """Give up what is too old, and say when to try again."""
        oldest = (self._redis_time() - webhooks.GIVE_UP_AFTER) * 1000
        too_old = [each.id for each in page.receipts if ids.milliseconds(each.id) < oldest]
        if too_old:
            metrics.webhooks.labels("given_up").inc(len(too_old))
            self._told.error(
                "receipts could not be sent for too long: given up",
                feed=feed, receipts=len(too_old), last=ids.render(too_old[-1]),
            )  # fmt: skip
        sent = max(position.sent, *too_old) if too_old else position.sent
        failures = position.failures + 1
        await self._log.moved(feed, Position(sent, failures))
        return Next(webhooks.pause(failures, self._chance(), asked), rest=True)

    async def _attempt(self, feed: str, receipt: Stored) -> tuple[Verdict, float]:
        """Post one receipt; the outcome, and the seconds that the receiver asks to wait."""
        whose = {"publisher": name_of(feed)}
        if namespace := namespace_of(feed):
            whose["namespace"] = namespace
        data = receipts.receipt(receipt.id, receipt.body, **whose)
        stamp = rfc3339(ids.milliseconds(receipt.id))
        payload = webhooks.payload("receipt", stamp, data)
        message = webhooks.message_id(feed, receipt.id)
        headers = webhooks.headers(self._secret, message, int(self._clock()), payload)
        status, verdict, asked = "", Verdict.RETRY, 0.0
        started = time.perf_counter()
        try:
            answer = await self._post(headers, payload)
        except (HTTPClientError, StreamClosedError, OSError, ValueError) as error:
            status = type(error).__name__
        except Exception as error:
            # Whatever a client library meets in a broken answer, the node must live on.
            log.exception("an attempt failed in an unforeseen way")
            status = type(error).__name__
        else:
            status, verdict = str(answer.code), webhooks.verdict(answer.code)
            asked = webhooks.retry_after(answer.headers, self._clock())
            metrics.webhook_seconds.observe(time.perf_counter() - started)
        metrics.webhooks.labels(verdict.value).inc()
        if verdict is not Verdict.DELIVERED:
            self._told.warning("a webhook was not delivered", message=message, status=status)
        return verdict, asked

    async def _post(self, headers: dict[str, str], payload: bytes) -> HTTPResponse:
        return await self._client.fetch(
            self._url,
            method="POST",
            headers=headers | {"User-Agent": "pushsvc"},
            body=payload,
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=REQUEST_TIMEOUT,
            follow_redirects=False,
            decompress_response=False,
            streaming_callback=lambda _: None,
            raise_error=False,
        )
