"""What a backend asks with either publisher, against a real node."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from pushsvc.client import (
    Acked,
    AsyncPublisher,
    Closed,
    OutcomeUnknown,
    Publisher,
    Refused,
    Revocation,
    connect,
    listen,
)
from tests.support.nodes import Node, publisher_token, token
from tests.support.proxy import Proxy
from tests.support.services import service

Ask = Callable[..., Awaitable[Any]]
"""Call a method by its name; of ``history`` the answer is a list."""
Opened = Callable[..., AbstractAsyncContextManager[Ask]]

LISTED = ("history", "export")
"""What is asked for page by page."""
NAMES = ["auth0|507f", "a/b", "..", "ü &?#%2F+", "{6F9619FF}"]


@pytest.fixture(params=["blocking", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a publisher of either kind: they do the same."""

    @asynccontextmanager
    async def blocking(url: str, **options: Any) -> AsyncIterator[Ask]:
        with Publisher(url, **options) as publisher:

            def call(name: str, *args: Any, **kwargs: Any) -> Any:
                found = getattr(publisher, name)(*args, **kwargs)
                return list(found) if name in LISTED else found

            yield lambda *args, **kwargs: asyncio.to_thread(call, *args, **kwargs)

    @asynccontextmanager
    async def in_loop(url: str, **options: Any) -> AsyncIterator[Ask]:
        async with AsyncPublisher(url, **options) as publisher:

            async def call(name: str, *args: Any, **kwargs: Any) -> Any:
                found = getattr(publisher, name)(*args, **kwargs)
                return [each async for each in found] if name in LISTED else await found

            yield call

    return blocking if request.param == "blocking" else in_loop


def admin_token() -> str:
    return token("backend", "push.publish", "push.admin")


@pytest.mark.parametrize("name", NAMES)
async def test_what_a_mailbox_keeps_is_told_whatever_the_user_is_called(
    node: Node, user: str, opened: Opened, name: str
) -> None:
    name = f"{name}{user}"
    async with opened(node.url, token=publisher_token()) as ask:
        receipt = await ask("publish", user=name, data={"n": 1}, event="order.shipped", ttl=60)
        (kept,) = await ask("history", name)
        assert (kept.id, kept.data, kept.event, kept.acked) == (
            receipt.id, {"n": 1}, "order.shipped", (),
        )  # fmt: skip
        assert abs((datetime.now(UTC) - kept.time).total_seconds()) < 30
        assert 55 < (kept.expires - kept.time).total_seconds() < 65
        assert await ask("devices", name) == []
        recalled = await ask("recall", receipt.id, user=name)
        assert (recalled.id, recalled.acked) == (receipt.id, ())
        assert await ask("history", name) == []


async def test_what_is_scheduled_is_taken_back_until_it_is_out(
    node: Node, user: str, opened: Opened
) -> None:
    late = datetime.now(UTC) + timedelta(hours=1)
    async with opened(node.url, token=publisher_token()) as ask:
        soon = await ask("publish", user=user, data=1, at=datetime.now(UTC))
        for to in ({"user": user}, {"topic": user}, {"broadcast": True}):
            receipt = await ask("publish", **to, data=1, at=late)
            assert receipt.at is not None
            assert abs(receipt.at - late) < timedelta(milliseconds=1)
            recalled = await ask("recall", receipt.id, **to)
            assert (recalled.id, recalled.cancelled) == (receipt.id, True)
        async with asyncio.timeout(10):
            while not (kept := await ask("history", user)):
                await asyncio.sleep(0.02)
        recalled = await ask("recall", soon.id, user=user)
        assert (recalled.cancelled, recalled.notification) == (False, kept[0].id)
        assert await ask("recall", receipt.id, topic=user) is None
        with pytest.raises(ValueError, match="is no id"):
            await ask("recall", "a/b", topic=user)
        for whose in ({}, {"user": user, "topic": user}, {"topic": user, "broadcast": True}):
            with pytest.raises(ValueError, match="exactly one"):
                await ask("recall", receipt.id, **whose)
        assert (await ask("publish", user=user, data=1)).at is None


async def test_the_history_goes_on_page_by_page_until_its_end_or_its_limit(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=publisher_token()) as ask:
        await ask("publish_many", [{"user": user, "data": n} for n in range(250)])
        everything = await ask("history", user)
        assert [each.data for each in everything] == list(reversed(range(250)))
        assert [each.data for each in await ask("history", user, limit=120)] == list(
            range(249, 129, -1)
        )
        assert await ask("history", user, limit=0) == []
        page = await ask("page", user, limit=20)
        assert len(page.notifications) == 20
        assert page.next == page.notifications[-1].id
        following = await ask("page", user, before=page.next)
        assert following.notifications == tuple(everything[20:120])
        last = await ask("page", user, before=everything[-2].id)
        assert (last.notifications, last.next) == ((everything[-1],), None)
        rest = await ask("history", user, before=everything[-3].id)
        assert rest == everything[-2:]
        with pytest.raises(Refused, match="limit"):
            await ask("page", user, limit=101)


async def test_bytes_come_back_as_bytes_and_acks_with_their_device(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=publisher_token()) as ask:
        receipt = await ask("publish", user=user, data=b"\x00\xff", receipt=True)
        async with aclosing(listen(node.url, token=token(user), device="phone")) as listening:
            async for notification in listening:
                await notification.ack()
                break
        (kept,) = await ask("history", user)
        assert kept.data == b"\x00\xff"
        assert [each.device for each in kept.acked] == ["phone"]
        assert isinstance(kept.acked[0], Acked)
        assert kept.acked[0].time is not None
        assert kept.raw["encoding"] == "base64"
        recalled = await ask("recall", receipt.id, user=user)
        assert recalled.acked == ("phone",)


async def test_recalling_what_is_not_kept_is_none_and_what_is_no_id_is_an_error(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=publisher_token()) as ask:
        assert await ask("recall", "1764000000123-0", user=user) is None
        for wrong in ("", "..", "1", "1-0/x", "1-0?user=other"):
            with pytest.raises(ValueError, match="no id"):
                await ask("recall", wrong, user=user)
    async with opened(node.admin_url, token=publisher_token()) as ask:
        with pytest.raises(Refused, match="the admin port"):
            await ask("recall", "1764000000123-0", user=user)


async def test_a_recall_whose_answer_was_lost_is_told_as_one_that_was_not(
    node: Node, user: str, opened: Opened
) -> None:
    with Proxy(node.port) as network:
        url = f"http://127.0.0.1:{network.port}"
        async with opened(url, token=publisher_token()) as ask:
            receipt = await ask("publish", user=user, data=1)
            network.cut_after = receipt.id.encode()
            recalling = asyncio.ensure_future(ask("recall", receipt.id, user=user))
            while not network.cuts:
                await asyncio.sleep(0.01)
            network.cut_after = b""
            recalled = await recalling
            assert recalled is not None
            assert recalled.id == receipt.id


async def test_who_is_here_is_told_by_device_and_by_topic(
    node: Node, user: str, opened: Opened
) -> None:
    topic = f"room/{user}"
    auth = token(user, topics={"subscribe": ["**"]})
    async with (
        opened(node.url, token=publisher_token()) as ask,
        connect(node.url, token=auth, device="phone") as client,
    ):
        await client.subscribe(topic)
        (device,) = await ask("devices", user)
        assert (device.name, device.connections) == ("phone", 1)
        assert abs((datetime.now(UTC) - device.since).total_seconds()) < 30
        users, count = present = await ask("presence", topic)
        assert (users, count, present.sample) == ((user,), 1, False)
        assert await ask("presence", "nobody-is-here") == ((), 0)


async def test_receipts_say_what_became_of_it_and_go_on_where_the_last_answer_ended(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=publisher_token(user)) as ask:
        nothing = await ask("receipts")
        assert (nothing.receipts, nothing.gap) == ((), None)
        waiting = asyncio.ensure_future(ask("receipts", after=nothing.next, wait=20))
        receipt = await ask("publish", user=user, data=1, receipt=True)
        second = await ask("publish", user=user, data=2, receipt=True)
        await ask("recall", second.id, user=user)
        page = await waiting
        (outcome,) = page.receipts
        assert (outcome.notification, outcome.user, outcome.status, outcome.device) == (
            second.id, user, "recalled", None,
        )  # fmt: skip
        assert outcome.at <= datetime.now(UTC)
        async for notification in listen(node.url, token=token(user), device="tablet"):
            await notification.ack()
            break
        page = await ask("receipts", after=page.next, wait=20)
        assert [(o.notification, o.status, o.device) for o in page.receipts] == [
            (receipt.id, "acked", "tablet")
        ]
        assert page.next == page.receipts[-1].id


async def test_a_user_is_disconnected_and_revocations_are_listed(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=admin_token()) as ask:
        old = token(user)
        async with connect(node.url, token=old) as client:
            while client.state.status != "connected":
                await asyncio.sleep(0.01)
            revoked = await ask("disconnect", user, ttl=3600)
            with pytest.raises(Refused, match="revoked"):
                async for _ in client:
                    pass
        assert isinstance(revoked, Revocation)
        assert (revoked.user, revoked.jti) == (user, None)
        assert revoked.issued_before is not None
        assert 3500 < revoked.expires_at.timestamp() - time.time() < 3700
        one = await ask("revoke", jti=f"jti-{user}", ttl=60)
        assert (one.user, one.jti, one.issued_before) == (None, f"jti-{user}", None)
        before = datetime(2026, 1, 2, tzinfo=UTC)
        assert (await ask("revoke", user=f"{user}-2", issued_before=before)).issued_before == before
        again = await ask("revoke", everyone=True, issued_before=1.9)
        assert (again.user, again.issued_before) == (None, datetime.fromtimestamp(1, UTC))
        listed = await ask("revocations")
        assert {revoked, one} <= set(listed)
        for wrong in ({}, {"user": user, "jti": "j"}, {"everyone": True}):
            with pytest.raises(ValueError, match="everyone"):
                await ask("revoke", **wrong)
        with pytest.raises(ValueError, match="jti"):
            await ask("revoke", jti="j", issued_before=1)
    async with opened(node.url, token=publisher_token()) as ask:
        with pytest.raises(Refused, match=r"push\.admin"):
            await ask("disconnect", user)


@pytest.mark.parametrize("name", NAMES)
async def test_all_that_is_kept_of_a_user_is_told_and_erased(
    node: Node, user: str, opened: Opened, name: str
) -> None:
    name += user
    for number in range(3):
        node.publish(name, number)
    async with opened(node.url, token=admin_token()) as ask:
        parts = await ask("export", name)
        assert {part["user"] for part in parts} == {name}
        kept = [each["data"] for part in parts for each in part["notifications"]]
        assert kept == [2, 1, 0]
        erased = await ask("erase", name)
        assert (erased.user, erased.keys > 0) == (name, True)
        (first, *_) = await ask("export", name)
        assert (first["devices"], first["notifications"]) == ([], [])


async def test_a_ticket_stands_for_the_publishers_token_or_for_a_users(
    node: Node, user: str, opened: Opened
) -> None:
    async with opened(node.url, token=publisher_token()) as ask:
        await ask("publish", user=user, data="hi")
        ticket = await ask("ticket", token(user))
        assert ticket.expires_in == 30
        assert ticket.ticket not in repr(ticket)
        polled = await asyncio.to_thread(
            httpx.get, f"{node.url}/v1/poll", params={"ticket": ticket.ticket, "wait": "0"}
        )
        notes = [each for each in polled.json()["messages"] if each["type"] == "notification"]
        assert [each["data"] for each in notes] == ["hi"]
        assert (await ask("ticket")).ticket != ticket.ticket
        with pytest.raises(Refused, match="401"):
            await ask("ticket", "no.t.oken")


async def test_an_answer_that_is_not_as_documented_is_told_as_one(opened: Opened) -> None:
    with service(lambda _: (200, {})) as url:
        async with opened(url, token="t") as ask:
            for name, asked in [
                ("page", {"user": "u"}), ("devices", {"user": "u"}),
                ("recall", {"id": "1-0", "user": "u"}),
            ]:  # fmt: skip
                with pytest.raises(OutcomeUnknown, match="not what was asked for"):
                    await ask(name, **asked)
            with pytest.raises(OutcomeUnknown, match="not what was asked for"):
                await ask("history", "u")


async def test_after_the_end_nothing_is_asked(node: Node, user: str, opened: Opened) -> None:
    async with opened(node.url, token=publisher_token()) as ask:
        pass
    of = {"user": user}
    for name, asked in [
        ("history", of), ("page", of), ("devices", of), ("presence", {"topic": "t"}),
        ("receipts", {}), ("recall", {"id": "1-0", **of}), ("disconnect", of), ("ticket", {}),
        ("revocations", {}), ("erase", of), ("export", of),
    ]:  # fmt: skip
        with pytest.raises(Closed):
            await ask(name, **asked)
