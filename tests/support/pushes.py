"""A mailbox with devices that are reached while they are away, and a look behind them."""

from typing import Any, Final

import msgspec

from pushsvc.errors import checked
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.push_registrations import PushRegistrations
from pushsvc.feeds.pushes import AGAIN, Done, Due, Push, Pushes
from pushsvc.feeds.read_state import ReadStates
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import receipts
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.push import PushRegistration, PushText
from tests.support.store import FEED, Store

TEXT: Final = msgspec.json.encode(PushText("Your order", "It is on its way."))
BACKEND: Final = receipts("backend")


def registered(address: str, **fields: Any) -> PushRegistration:
    """A registration of an app."""
    return PushRegistration(
        **{"id": f"r-{address}", "provider": "fcm", "address": address} | fields
    )


class PushStore(Store):
    """The pushes of a store."""

    def __init__(self, url: str, prefix: str, bounds: Bounds) -> None:
        super().__init__(url, prefix, bounds)
        self.registrations = PushRegistrations(self.commands)
        self.work = WorkQueue("push", self.commands, hold=10, keep=7200, again=AGAIN)
        self.pushes = Pushes(self.feeds, self.commands, self.work, self.registrations)

    async def register(self, device: str, address: str = "", **fields: Any) -> bool:
        whose = fields.pop("feed", FEED)
        return await self.registrations.register(
            whose, device, registered(address or f"at-{device}", **fields)
        )

    async def push(self, feed: str = FEED, **fields: Any) -> int:
        """Publish a notification with a push that is due at once."""
        append = Append(feed, b'"data":1}', push=TEXT, **fields)
        await self.pushes.foresee([append])
        return await self.publish('"data":1}', feed, push=TEXT, **fields)

    async def look(self, feed: str = FEED) -> Due:
        return checked((await self.pushes.due([feed]))[0])

    async def devices_due(self, feed: str = FEED) -> set[str]:
        return {each.device for each in (await self.look(feed)).pushes}

    async def settle(self, push: Push, state: str = "sent", **fields: Any) -> set[str]:
        return await self.pushes.settle([Done(push, state, **fields)])  # type: ignore[arg-type]

    async def send_all(self, feed: str = FEED) -> list[tuple[str, int]]:
        """Send what is due; which devices were sent which notifications."""
        due = (await self.look(feed)).pushes
        await self.pushes.settle([Done(each, "sent") for each in due])
        return [(each.device, each.notification) for each in due]

    async def states_begin(self, states: ReadStates) -> None:
        """Have the read state begin, so that what is acknowledged later stays unread."""
        await self.publish()
        await states.count(FEED)

    def pending(self, feed: str = FEED) -> list[int]:
        found = self.redis.zrange(self.keys.pushes(feed), 0, -1)
        return [ids.parse(str(each)) for each in found]

    def told(self) -> list[dict[str, Any]]:
        """The receipts that the backend was given."""
        log: Any = self.redis.xrange(self.keys.log(BACKEND))
        return [msgspec.json.decode("{" + str(fields["d"])) for _, fields in log]

    def outcome_of_a_crash(self, push: Push, state: str = "sent") -> Any:
        """The command that writes an outcome down, after which the node dies."""
        return self.pushes._note(push.mailbox, push.notification, [Done(push, state)])  # type: ignore[arg-type]
