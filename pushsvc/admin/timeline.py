"""Where a notification is: what its feed keeps, and what the nodes remember, as one timeline.

Pure: what is known and the time go in. The feed is the truth about what is kept and acknowledged;
the event logs tell which node sent it where and when, as far back as they go. The clocks of nodes
differ by milliseconds, so an effect is never told before its cause.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from pushsvc.admin.device_status import DeviceStatus, device_statuses, many
from pushsvc.feeds.event_log import (
    ACCEPTED,
    CLOSED,
    SENT,
    SPREAD,
    WITHDRAWN,
    Answer,
    Seen,
)
from pushsvc.feeds.history import Retained
from pushsvc.feeds.nodes import node_of
from pushsvc.feeds.trace_answers import Kept
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import by_node

ACKED: Final = "acked"

ORDER: Final = (ACCEPTED, "repeated", "routed", SENT, ACKED, CLOSED)
"""What comes first of what happened in one millisecond."""

ENDS: Final = {
    "recalled": "it was recalled",
    "acked": "one device acknowledged it for all",
    "replaced": "a newer one with its collapse key took its place",
    "trimmed": "it made room for newer ones",
    "expired": "its time to live has passed",
}
"""How an entry leaves its mailbox."""

PROMPT: Final = {"none": 1_000, "memory": 1_000}
CONFIRMED: Final = 5_000
"""Milliseconds from an append until its node remembers it, at most: at once, by the durability that
was reached, or after a wait for more than memory."""


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to it."""

    time: int
    what: str
    node: str = ""
    device: str = ""
    connection: str = ""
    by: str = ""
    attempt: int = 0
    note: str = ""


class Timeline(msgspec.Struct, frozen=True):
    """What happened to a notification, and how far it is with each device.

    ``acked`` is one that all of the user's devices have acknowledged, ``sent`` one that at least
    one listener was sent, ``waiting`` one that is kept and was sent to nobody yet, ``expired`` one
    whose time to live has passed, ``gone`` one that is not kept any more.
    """

    id: int
    feed: str | None
    entry: Retained | None
    status: str
    steps: Sequence[Step]
    devices: Sequence[DeviceStatus]
    note: str
    """What else there is to say, in sentences; may be empty."""
    answers: Mapping[str, Answer | None]
    """The live nodes, and what each answered."""
    unasked: Collection[str] = ()
    """Those of them that were not asked, since they seem to be dead."""
    also: Sequence[str] = ()
    """Other feeds in which something has this id."""


def unknown(
    entry_id: int, answers: Mapping[str, Answer | None], unasked: Collection[str] = ()
) -> Timeline:
    """The timeline of an id that no event log remembers."""
    note = (
        "No node remembers this id. Name the user or the topic: what is kept there is found "
        "however old it is."
    )
    notes = [note, *_silent(answers, unasked)]
    return Timeline(entry_id, None, None, "unknown", (), (), _sentences(notes), answers, unasked)


def timeline(
    entry_id: int,
    feed: str,
    kept: Kept,
    answers: Mapping[str, Answer | None],
    unasked: Collection[str] = (),
) -> Timeline:
    """The timeline of a notification.

    Args:
        entry_id: its id.
        feed: where it was published.
        kept: what the feed says.
        answers: what each of the live nodes answered, None for one that did not.
        unasked: those of them that were not asked.
    """
    seen = _in_order(entry_id, answers)
    kept = _for_one(kept, seen)
    was_here = kept.expires is not None or kept.withdrawn or kept.ended or seen
    if not was_here:
        return _stranger(entry_id, feed, kept, answers, unasked)
    acked = _acked(entry_id, kept, seen)
    steps = _steps(entry_id, kept, seen, acked)
    devices = [] if by_node(feed) else device_statuses(entry_id, kept, answers, seen, acked)
    notes = [
        *_gone(kept, entry_id, seen),
        *_nobody(feed, kept, devices),
        *_silent(answers, unasked),
        *_lost(kept, seen, answers),
        *_forgotten(seen),
    ]
    entry = None
    if kept.owed and kept.expires is not None:
        entry = Retained(entry_id, kept.expires, kept.body, kept.acked, kept.device)
    return Timeline(
        entry_id,
        feed,
        entry,
        _status(kept, devices, seen),
        steps,
        devices,
        _sentences(notes),
        answers,
        unasked,
    )


def _in_order(entry_id: int, answers: Mapping[str, Answer | None]) -> list[Seen]:
    """What all nodes saw, by time, once no time contradicts what is certain.

    A node knows Redis time by how long Redis took to answer it, so a busy one is wrong by up to
    half of that, and by more or less a second later. But nobody had to do with a notification
    before Redis gave it its id, and an event log is in the order in which things happened.
    """
    found: list[Seen] = []
    for answer in answers.values():
        time = ids.milliseconds(entry_id) / 1000
        for each in answer.seen if answer else ():
            time = max(time, each.time)
            found.append(msgspec.structs.replace(each, time=time))
    return sorted(found, key=lambda each: each.time)


def _for_one(kept: Kept, seen: Sequence[Seen]) -> Kept:
    """What is kept, where only a node remembers that it was for one device."""
    device = next((each.device for each in seen if each.what == ACCEPTED), "")
    if kept.device or not device:
        return kept
    acked = [each for each in kept.acked if each.device == device]
    return kept._replace(device=device, acked=acked)


def _stranger(
    entry_id: int,
    feed: str,
    kept: Kept,
    answers: Mapping[str, Answer | None],
    unasked: Collection[str],
) -> Timeline:
    """An id that the feed does not keep and nobody remembers."""
    if kept.head == ids.START:
        status = "unknown"
        note = "Nothing was published there, or it was longer ago than anything is kept."
    elif entry_id <= kept.head:
        status = "gone"
        note = "It is not kept: it expired, was replaced, recalled or trimmed, or never was there."
    else:
        status = "unknown"
        note = "Nothing with this id was published there: its newest is older."
    notes = [note, *_silent(answers, unasked)]
    return Timeline(entry_id, feed, None, status, (), (), _sentences(notes), answers, unasked)


def _acked(entry_id: int, kept: Kept, seen: Sequence[Seen]) -> dict[str, int | None]:
    """The devices that have acknowledged it, and when: not before it was sent there."""
    reached = {each.device: each.ms for each in reversed(seen) if each.what in (SENT, SPREAD)}
    published = ids.milliseconds(entry_id)
    return {
        device: None if at is None else max(at, reached.get(device, published))
        for device, at in _counted(kept, seen).items()
    }


def _counted(kept: Kept, seen: Sequence[Seen]) -> dict[str, int | None]:
    """The acks that are of this notification, with the times that Redis knows.

    Acks are cumulative, so one of what followed it may come from a device that never had it: of
    what is over only those count that came in time, or from a device that was sent it.
    """
    acked: dict[str, int | None] = {each.device: each.time for each in kept.acked}
    if kept.withdrawn == "acked" or kept.owed:
        return acked
    end = _end(kept, seen)
    sent = {each.device for each in seen if each.what == SENT}
    taken = end is not None and end.what != "expired"

    def counts(device: str, at: int | None) -> bool:
        in_time = end is not None and at is not None and at <= end.time
        known = taken and at is not None
        return in_time or (device in sent and not known)

    return {device: at for device, at in acked.items() if counts(device, at)}


def _status(kept: Kept, devices: Sequence[DeviceStatus], seen: Sequence[Seen]) -> str:
    everyone = {each.status for each in devices}
    if everyone == {"acked"} or kept.withdrawn == "acked":
        return "acked"
    if kept.expires is None:
        sent = any(each.what in (SENT, SPREAD) for each in seen)
        return "sent" if sent and not kept.withdrawn and _live_only(seen) else "gone"
    if kept.expires <= kept.now:
        return "expired"
    if everyone & {"acked", "sent"} or any(each.what == SPREAD for each in seen):
        return "sent"
    return "waiting"


# --- what happened -------------------------------------------------------------------------------


def _steps(
    entry_id: int, kept: Kept, seen: Sequence[Seen], acked: Mapping[str, int | None]
) -> list[Step]:
    """What happened, oldest first."""
    published = ids.milliseconds(entry_id)
    sent = [_sent(each) for each in seen if each.what in (SENT, SPREAD)]
    steps = [
        *_accepted(published, sent[0].time if sent else None, seen),
        *sent,
        *(Step(at, ACKED, device=device) for device, at in acked.items() if at is not None),
        *(_closed(each) for each in seen if each.what == CLOSED),
    ]
    if end := _end(kept, seen):
        steps.append(end)
    rank = {what: number for number, what in enumerate(ORDER)}
    return sorted(steps, key=lambda step: (step.time, rank.get(step.what, len(ORDER))))


def _sent(event: Seen) -> Step:
    return Step(
        event.ms,
        SENT,
        event.node,
        event.device,
        event.connection,
        attempt=event.attempt,
        note=_spread(event) if event.what == SPREAD else "",
    )


def _closed(event: Seen) -> Step:
    note = "it was not acknowledged by then"
    return Step(event.ms, CLOSED, event.node, event.device, event.connection, note=note)


def _end(kept: Kept, seen: Sequence[Seen]) -> Step | None:
    """How it ended, where the time of that is known."""
    if heard := [each for each in seen if each.what == WITHDRAWN]:
        withdrawn = heard[-1]  # a node that has not heard of it yet may still send it
        note = ENDS.get(withdrawn.reason, withdrawn.reason)
        return Step(withdrawn.ms, WITHDRAWN, note=note)
    if kept.ended is not None:
        how, at = kept.ended
        return Step(at, how, note=ENDS.get(how, ""))
    if kept.expires is not None and kept.expires <= kept.now:
        return Step(kept.expires, "expired", note=ENDS["expired"])
    return None


def _accepted(published: int, first_sent: int | None, seen: Sequence[Seen]) -> Iterator[Step]:
    """Its beginning, which its id tells even where nobody remembers it."""
    events = [each for each in seen if each.what == ACCEPTED]
    # Where the node that appended it is gone, the first that is remembered is a retry.
    if events and _appended(events[0], published):
        first, *events = events
        durability = first.durability
        note = f"durability {durability}" if durability else "its durability was not confirmed"
        yield Step(published, ACCEPTED, first.node, first.device, by=first.by, note=note)
        routed = first.ms if first_sent is None else min(first.ms, first_sent)
        yield Step(routed, "routed", first.node, note=_routed(first))
    else:
        yield Step(published, ACCEPTED)
    for event in events:
        note = f"with the same Idempotency-Key; {_routed(event)}"
        yield Step(event.ms, "repeated", event.node, by=event.by, note=note)


def _appended(event: Seen, published: int) -> bool:
    """Whether it tells of the append, whose time the id has, and not of a repeated request."""
    return event.ms - published <= PROMPT.get(event.durability, CONFIRMED)


def _routed(event: Seen) -> str:
    if not event.count:
        return "nobody was connected"
    return f"to {many(event.count, 'connection')} on {', '.join(sorted(event.nodes))}"


def _spread(event: Seen) -> str:
    text = f"to {many(event.count, 'connection')}"
    return f"{text}; {many(event.late, 'more')} read it from the feed" if event.late else text


# --- what else there is to say -------------------------------------------------------------------


def _gone(kept: Kept, entry_id: int, seen: Sequence[Seen]) -> Iterator[str]:
    """Why it is not kept."""
    if kept.expires is not None:
        return
    if kept.withdrawn:
        yield f"It is not kept: {ENDS.get(kept.withdrawn, kept.withdrawn)}."
    elif kept.ended is not None:
        yield f"It is not kept: {ENDS.get(kept.ended[0], kept.ended[0])}."
    elif _live_only(seen):
        yield "It was for who was connected only, and is not kept."
    elif entry_id <= kept.trimmed:
        yield f"It is not kept: {ENDS['trimmed']}, or was too old."
    else:
        yield f"It is not kept: {ENDS['replaced']}, or it was taken out."


def _live_only(seen: Sequence[Seen]) -> bool:
    return any(each.what == ACCEPTED and each.durability == "none" for each in seen)


def _nobody(feed: str, kept: Kept, devices: Sequence[DeviceStatus]) -> Iterator[str]:
    if kept.owed and not devices and not by_node(feed):
        yield "No device of the user has connected yet: it waits for the first."


def _silent(answers: Mapping[str, Answer | None], unasked: Collection[str]) -> Iterator[str]:
    late = sorted(node for node, each in answers.items() if each is None and node not in unasked)
    if late:
        yield f"Did not answer in time, so what they did is missing here: {', '.join(late)}."
    if unasked:
        names = ", ".join(sorted(unasked))
        yield f"Not asked, as they have said nothing for seconds and seem to be dead: {names}."


def _lost(kept: Kept, seen: Sequence[Seen], answers: Mapping[str, Answer | None]) -> Iterator[str]:
    """The nodes that had to do with it and are no more."""
    concerned = {node for event in seen for node in event.nodes}
    concerned |= {node_of(each) for each in kept.listeners}
    if concerned := concerned - answers.keys():
        yield f"Has ended, and its journal with it: {', '.join(sorted(concerned))}."


def _forgotten(seen: Sequence[Seen]) -> Iterator[str]:
    if not any(each.what == ACCEPTED for each in seen):
        yield "No node remembers who published it: it was too long ago, or too much at a time."


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(notes)
