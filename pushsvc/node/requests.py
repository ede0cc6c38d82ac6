"""What clients ask for on their connections: topics, presence, publishing."""

import asyncio
from typing import Final

import structlog

from pushsvc.errors import PushError
from pushsvc.feeds.feed import Append
from pushsvc.feeds.publisher import Publisher, Receipt
from pushsvc.node.feeder import Listener
from pushsvc.node.topics import Topics
from pushsvc.protocol import ids, messages, notifications
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.session import Present, Publish, Request, Subscribe, Unsubscribe

log: Final = structlog.get_logger("pushsvc.requests")


class Requests:
    """Serves what clients ask for.

    Args:
        topics: of the worker.
        publisher: for what they publish.
        max_message: most bytes of a message.
    """

    def __init__(self, topics: Topics, publisher: Publisher, max_message: int) -> None:
        self._topics = topics
        self._publisher = publisher
        self._max_message = max_message
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, listener: Listener, request: Request) -> None:
        """Do what a client asks for, and answer its ref."""
        if isinstance(request, Subscribe):
            self._topics.subscribe(listener, request)
        elif isinstance(request, Unsubscribe):
            self._topics.unsubscribe(listener, request.topic, request.ref)
        elif isinstance(request, Present):
            self._topics.ask(listener, request.topic, request.ref)
        else:
            # Tasks begin in the order in which they are made, and so do their appends.
            task = asyncio.get_running_loop().create_task(self._publish(listener, request))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _publish(self, listener: Listener, request: Publish) -> None:
        message, ref = request.message, request.ref
        try:
            body = notifications.publish_from(message, self._max_message, listener.session.user)
            feed = topic(message.topic)
            result: Receipt | PushError
            if message.ephemeral:
                result = await self._publisher.pass_on(feed, body)
            else:
                append = Append(feed, body, message.ttl, collapse_key=message.collapse_key or "")
                (result,) = await self._publisher.publish([append], listener.session.user)
        except PushError as error:
            result = error
        if isinstance(result, PushError):
            listener.send(messages.error(result, ref))
        elif ref is not None:
            fields = {"id": ids.render(result.id)} if result.id else {}
            listener.send(
                messages.reply(
                    ref,
                    **fields,
                    durability=result.durability.value,
                    connections=result.connections,
                )
            )

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a request failed in an unforeseen way", exc_info=task.exception())

    async def aclose(self) -> None:
        """Finish what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
