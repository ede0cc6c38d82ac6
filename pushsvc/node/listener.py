"""A connection, as those see it who send to it, and all of those of a node, by namespace."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pushsvc.protocol.feeds import namespace_of
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import Wire


class Listener(Protocol):
    """A connection, as those see it who send to it: a socket, a stream or a poll."""

    number: int
    """Unique in this process."""
    session: Session
    open: bool

    @property
    def wire(self) -> Wire:
        """How messages are written to it."""

    def writable(self) -> bool:
        """Whether the next frame may be handed over."""

    def write(self, data: bytes) -> None:
        """Hand over frames."""

    def send(self, payload: bytes) -> None:
        """Send one message that is no entry of a feed."""

    def watch(self) -> None:
        """It owes an acknowledgement from now on, or does still."""


class Listeners:
    """The listeners of a node in one namespace, by their mailboxes.

    Those are included whose handshake is under way.
    """

    def __init__(self) -> None:
        # Most mailboxes have one listener, which then stands for itself.
        self._by_feed: dict[str, Listener | list[Listener]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Listener]:
        for here in self._by_feed.values():
            if isinstance(here, list):
                yield from here
            else:
                yield here

    def feeds(self) -> list[str]:
        """The mailboxes that have a listener here."""
        return list(self._by_feed)

    def of(self, feed: str) -> Sequence[Listener]:
        """The listeners of a mailbox."""
        here = self._by_feed.get(feed)
        if here is None:
            return ()
        return list(here) if isinstance(here, list) else (here,)

    def add(self, listener: Listener) -> None:
        """Take a listener in."""
        feed = listener.session.cursor.feed
        here = self._by_feed.get(feed)
        self._count += 1
        if here is None:
            self._by_feed[feed] = listener
        elif isinstance(here, list):
            here.append(listener)
        else:
            self._by_feed[feed] = [here, listener]

    def remove(self, listener: Listener) -> None:
        """Forget a listener that was added."""
        self._count -= 1
        feed = listener.session.cursor.feed
        here = self._by_feed.get(feed)
        if here is listener:
            del self._by_feed[feed]
        elif isinstance(here, list) and listener in here:
            here.remove(listener)
            if len(here) == 1:
                self._by_feed[feed] = here[0]


class Everyone:
    """All listeners of a node.

    Those of each namespace are apart, so that what goes to all of one costs the others nothing.
    """

    def __init__(self) -> None:
        self._default = Listeners()
        # Each for as long as someone is in it.
        self._others: dict[str, Listeners] = {}

    def within(self, namespace: str) -> Listeners:
        """The listeners of a namespace, to be asked for anew each time."""
        if not namespace:
            return self._default
        listeners = self._others.get(namespace)
        return Listeners() if listeners is None else listeners

    def feeds(self) -> list[str]:
        """The mailboxes that have a listener here."""
        feeds = self._default.feeds()
        for listeners in self._others.values():
            feeds += listeners.feeds()
        return feeds

    def of(self, feed: str) -> Sequence[Listener]:
        """The listeners of a mailbox."""
        here = self._default.of(feed)
        return here if here or not self._others else self.within(namespace_of(feed)).of(feed)

    def add(self, listener: Listener) -> None:
        """Take a listener in."""
        namespace = listener.session.namespace
        if namespace:
            self._others.setdefault(namespace, Listeners()).add(listener)
        else:
            self._default.add(listener)

    def remove(self, listener: Listener) -> None:
        """Forget a listener that was added."""
        namespace = listener.session.namespace
        listeners = self.within(namespace)
        listeners.remove(listener)
        if namespace and not len(listeners):
            del self._others[namespace]
