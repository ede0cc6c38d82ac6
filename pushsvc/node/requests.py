"""What clients ask for on their connections: topics, presence, publishing, what was read."""

from collections.abc import Callable

from pushsvc.errors import PushError
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.feeds.read_state import ReadStates
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Listener
from pushsvc.node.tasks import Tasks
from pushsvc.node.topics import Topics
from pushsvc.protocol import messages, notifications
from pushsvc.protocol.read_state import LOOKED_AT_ONCE
from pushsvc.protocol.session import (
    ChangeReadState,
    Policy,
    Present,
    Publish,
    Request,
    Subscribe,
    Unsubscribe,
)


class Requests:
    """Serves what clients ask for.

    Args:
        topics: of the worker.
        publisher: for what they publish.
        read_states: for what their users have read.
        identity: the node's.
        policy: the rules of every session.
        clock: seconds on a monotonic clock.
        max_message: most bytes of a message.
        owe: accounts a user for what its connections asked for, given which and how much.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        read_states: ReadStates,
        identity: NodeIdentity,
        policy: Policy,
        clock: Callable[[], float],
        max_message: int,
        owe: Callable[[str, int], None],
    ) -> None:
        self._topics = topics
        self._publisher = publisher
        self._read_states = read_states
        self._identity = identity
        self._policy = policy
        self._clock = clock
        self._max_message = max_message
        self._owe = owe
        self._tasks = Tasks("requests")

    def serve(self, listener: Listener, request: Request) -> None:
        """Do what a client asks for, and answer its ref."""
        if isinstance(request, Subscribe):
            if request.more:
                # By user: a new connection would owe nothing.
                self._owe(listener.session.caller, request.more)
            self._topics.subscribe(listener, request)
        elif isinstance(request, Unsubscribe):
            self._topics.unsubscribe(listener, request.topic, request.ref)
        elif isinstance(request, Present):
            self._topics.ask(listener, request.topic, request.ref)
        elif isinstance(request, ChangeReadState):
            self._tasks.spawn(self._change(listener, request))
        else:
            # Tasks begin in the order in which they are spawned, and so do their appends.
            self._tasks.spawn(self._publish(listener, request))

    async def _publish(self, listener: Listener, request: Publish) -> None:
        message, ref = request.message, request.ref
        try:
            user, namespace = listener.session.user, listener.session.namespace
            append = notifications.append_from(message, self._max_message, user, namespace)
            result: Published | PushError
            await self._publisher.admit([append], user)
            (result,) = await self._publisher.publish([append], user)
        except PushError as error:
            result = error
        if isinstance(result, PushError):
            listener.send(messages.error(result, ref))
        elif ref is not None:
            listener.send(messages.reply(ref, **result.to_json()))

    async def _change(self, listener: Listener, request: ChangeReadState) -> None:
        session = listener.session
        connection = self._identity.connection_id(listener.number)
        try:
            changed = await self._read_states.change(
                session.cursor.feed, request.change, connection
            )
        except PushError as error:
            listener.send(messages.error(error, request.ref))
            return
        if more := changed.looked // LOOKED_AT_ONCE:
            # As for a topic: by connection, and by user.
            session.looked_at(changed.looked, self._policy, self._clock())
            self._owe(session.caller, more)
        if request.ref is not None:
            listener.send(messages.reply(request.ref, unread=changed.unread))

    async def aclose(self) -> None:
        """Finish what is under way."""
        await self._tasks.finish()
