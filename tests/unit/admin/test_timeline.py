"""The story of a notification, out of what its feed keeps and what the nodes remember."""

from collections.abc import Mapping
from typing import Any

import pytest

from pushsvc.admin.device_status import DeviceStatus
from pushsvc.admin.timeline import Timeline, timeline, unknown
from pushsvc.feeds.event_log import Answer, ConnectionPosition, Seen
from pushsvc.feeds.history import Acked
from pushsvc.feeds.trace_answers import Kept
from pushsvc.protocol import ids

FEED = "u:ann"
AT = 1_764_000_000_000
ID = AT << 64
LATER = AT + 60_000
NOW = AT + 10_000
KEPT = Kept(now=NOW, expires=LATER, body=b'"data":1}', head=ID)
GONE = Kept(now=NOW, head=ID)


def seen(what: str, after: float, node: str = "n1", feed: str = FEED, **fields: Any) -> Seen:
    """Something that happened so many seconds after the publish."""
    return Seen(AT / 1000 + after, what, feed, node, **fields)


ACCEPTED = seen("accepted", 0.001, by="shop", durability="memory", count=1, nodes=("n2",))
SENT = seen("sent", 0.002, "n2", device="phone", connection="n2.1", attempt=1)
ACKED = [Acked("phone", AT + 500)]
ONLINE = {"n2.1": "phone"}


def place(sent: int = ID, acked: int = 0, unacked: int = 1, **fields: Any) -> ConnectionPosition:
    defaults: dict[str, Any] = {
        "connection": "n2.1",
        "device": "phone",
        "window": 64,
        "writable": True,
    }
    return ConnectionPosition(
        sent=ids.render(sent), acked=ids.render(acked), unacked=unacked, **defaults | fields
    )


def told(
    kept: Kept, *events: Seen, positions: tuple[ConnectionPosition, ...] = (), feed: str = FEED
) -> Timeline:
    """The trace where the nodes n1 and n2 answered."""
    answers: Mapping[str, Answer | None] = {
        node: Answer([e for e in events if e.node == node], list(positions) * (node == "n2"), None)
        for node in ("n1", "n2")
    }
    return timeline(ID, feed, kept, answers)


@pytest.mark.parametrize(
    ("kept", "events", "status"),
    [
        (KEPT, [ACCEPTED], "waiting"),
        (KEPT, [ACCEPTED, SENT], "sent"),
        (KEPT._replace(acked=ACKED), [ACCEPTED, SENT], "acked"),
        (KEPT._replace(cursors={"laptop": 0}, acked=ACKED), [SENT], "sent"),
        (KEPT._replace(acked=[Acked("phone", None)]), [], "acked"),
        (KEPT._replace(expires=NOW), [ACCEPTED], "expired"),
        (KEPT._replace(expires=NOW, acked=ACKED), [SENT], "acked"),
        (GONE, [], "gone"),
        (GONE, [ACCEPTED, SENT], "gone"),
        (GONE._replace(head=ID - 1), [], "unknown"),
        (GONE._replace(withdrawn="recalled"), [SENT], "gone"),
        (GONE._replace(withdrawn="acked"), [SENT], "acked"),
        (GONE._replace(ended=("replaced", NOW)), [], "gone"),
        (GONE, [seen("accepted", 0, durability="none", count=1), SENT], "sent"),
        (GONE, [seen("accepted", 0, durability="none")], "gone"),
    ],
)
def test_the_status_is_that_of_the_feed_and_of_the_devices(
    kept: Kept, events: list[Seen], status: str
) -> None:
    online = kept._replace(listeners=ONLINE) if SENT in events else kept
    assert told(online, *events).status == status


@pytest.mark.parametrize(
    ("kept", "positions", "status", "why"),
    [
        (KEPT, (), "offline", "not connected: it is sent when the device comes back"),
        (
            KEPT._replace(before=[(ID - 1, ""), (ID - 2, ""), (1, "")]),
            (),
            "offline",
            "not connected: it is sent when the device comes back, after 2 others",
        ),
        (KEPT._replace(listeners=ONLINE), (place(),), "sent", "not acknowledged yet"),
        (
            KEPT._replace(listeners=ONLINE),
            (place(ID - 1, unacked=64),),
            "waiting",
            "64 before it are not acknowledged: the window is full",
        ),
        (
            KEPT._replace(listeners=ONLINE),
            (place(ID - 1, writable=False),),
            "waiting",
            "the client reads too slowly: its socket is full",
        ),
        (
            KEPT._replace(listeners=ONLINE),
            (place(ID - 1),),
            "waiting",
            "connected, waiting for its turn",
        ),
        (
            KEPT._replace(listeners=ONLINE),
            (),
            "waiting",
            "connected to node n2, which did not tell where the connection stands",
        ),
        (
            KEPT._replace(listeners={"n9.1": "phone"}),
            (),
            "offline",
            "not connected: it is sent when the device comes back",
        ),
    ],
)
def test_a_device_says_why_it_is_not_done(
    kept: Kept, positions: tuple[ConnectionPosition, ...], status: str, why: str
) -> None:
    found = told(kept._replace(cursors={"phone": 1}), ACCEPTED, positions=positions)
    assert found.devices == [DeviceStatus("phone", status, None, why)]


def test_a_device_that_was_sent_it_again_says_how_often() -> None:
    again = seen("sent", 31, "n2", device="phone", connection="n2.1", attempt=2)
    (device,) = told(KEPT._replace(listeners=ONLINE), SENT, again).devices
    assert device == DeviceStatus("phone", "sent", AT + 31_000, "sent 2 times, not acknowledged")


def test_a_device_that_began_later_is_not_owed_it() -> None:
    kept = KEPT._replace(cursors={"phone": ID, "new": ID + 1}, starts={"new": ID + 1})
    kept = kept._replace(acked=[Acked("phone", AT + 5)])
    assert told(kept, ACCEPTED).devices == [DeviceStatus("phone", "acked", AT + 5)]


def test_the_steps_are_in_order_and_no_effect_comes_before_its_cause() -> None:
    # The clocks of three nodes, each a little off.
    accepted = seen("accepted", 0.004, by="shop", durability="memory", count=1, nodes=("n2",))
    sent = seen("sent", -0.002, "n2", device="phone", connection="n2.1", attempt=1)
    steps = told(KEPT._replace(acked=[Acked("phone", AT - 3)]), accepted, sent).steps
    assert [each.what for each in steps] == ["accepted", "routed", "sent", "acked"]
    assert {each.time for each in steps} == {AT}


def test_an_ack_is_not_before_the_sending_neither_in_the_steps_nor_of_the_device() -> None:
    late = seen("sent", 0.2, "n2", device="phone", connection="n2.1", attempt=1)
    found = told(KEPT._replace(acked=[Acked("phone", AT + 7)]), ACCEPTED, late)
    assert [each.time - AT for each in found.steps if each.what == "acked"] == [200]
    assert found.devices == [DeviceStatus("phone", "acked", AT + 200)]


@pytest.mark.parametrize("late", [-0.3, 0.001])
def test_a_clock_that_is_behind_closes_no_connection_before_it_was_sent_to(late: float) -> None:
    """A node that was slow to hear the answer knows Redis time less well than the next."""
    closed = seen("closed", late, "n2", device="phone", connection="n2.1")
    again = seen("sent", 0.004, "n2", device="phone", connection="n2.1", attempt=2)
    steps = told(KEPT, ACCEPTED, SENT, again, closed).steps
    assert [step.what for step in steps] == ["accepted", "routed", "sent", "sent", "closed"]
    assert [step.time - AT for step in steps] == [0, 1, 2, 4, 4]


def test_nothing_is_told_before_the_id_was_given_and_no_recall_before_it_was_sent() -> None:
    withdrawn = [seen("withdrawn", -0.3, node, reason="recalled") for node in ("n1", "n2")]
    steps = told(GONE, ACCEPTED, SENT, *withdrawn).steps
    assert [step.what for step in steps] == ["accepted", "routed", "sent", "withdrawn"]
    assert [step.time - AT for step in steps] == [0, 1, 2, 2]
    alone = told(GONE, withdrawn[0]).steps
    assert [(step.what, step.time - AT) for step in alone] == [("accepted", 0), ("withdrawn", 0)]


def test_an_ack_is_told_with_the_time_that_the_feed_knows() -> None:
    steps = told(KEPT._replace(acked=[Acked("phone", AT + 7)]), ACCEPTED).steps
    assert (steps[-1].what, steps[-1].device, steps[-1].time) == ("acked", "phone", AT + 7)
    untimed = told(KEPT._replace(acked=[Acked("phone", None)]), ACCEPTED)
    assert [each.what for each in untimed.steps] == ["accepted", "routed"]


def test_a_repeated_request_is_no_second_notification() -> None:
    again = seen("accepted", 3, by="shop", durability="memory", count=1, nodes=("n2",))
    steps = told(KEPT, ACCEPTED, SENT, again).steps
    assert [each.what for each in steps] == ["accepted", "routed", "sent", "repeated"]


@pytest.mark.parametrize(
    ("after", "durability", "steps"),
    [
        ([0.001], "memory", [("accepted", "n1"), ("routed", "n1")]),
        ([-0.002], "memory", [("accepted", "n1"), ("routed", "n1")]),
        ([0.9], "memory", [("accepted", "n1"), ("routed", "n1")]),
        ([2.5], "fsync", [("accepted", "n1"), ("routed", "n1")]),
        ([2.5], "", [("accepted", "n1"), ("routed", "n1")]),
        ([14], "memory", [("accepted", ""), ("repeated", "n1")]),
        ([1.5], "none", [("accepted", ""), ("repeated", "n1")]),
        ([14], "fsync", [("accepted", ""), ("repeated", "n1")]),
        ([14, 20], "", [("accepted", ""), ("repeated", "n1"), ("repeated", "n1")]),
        ([0.001, 14], "memory", [("accepted", "n1"), ("routed", "n1"), ("repeated", "n1")]),
    ],
)
def test_what_is_remembered_long_after_the_append_is_a_repeated_request(
    after: list[float], durability: str, steps: list[tuple[str, str]]
) -> None:
    # The node that appended it was killed: its journal is gone, the id still tells when that was.
    events = [seen("accepted", each, by="shop", durability=durability) for each in after]
    found = told(KEPT, *events).steps
    assert [(each.what, each.node) for each in found] == steps
    assert found[0].time == AT


def test_a_fan_out_is_one_step_a_node() -> None:
    spread = [
        seen("spread", 0.1, "n1", "t:news", count=900, late=3),
        seen("spread", 0.2, "n2", "t:news", count=1),
    ]
    found = told(KEPT, *spread, feed="t:news")
    assert found.status == "sent"
    assert found.devices == []
    assert [each.note for each in found.steps[1:]] == [
        "to 900 connections; 3 more read it from the feed",
        "to 1 connection",
    ]


@pytest.mark.parametrize(
    ("kept", "events", "note"),
    [
        (GONE._replace(withdrawn="recalled"), [ACCEPTED], "It is not kept: it was recalled."),
        (
            GONE._replace(ended=("replaced", NOW)),
            [ACCEPTED],
            "It is not kept: a newer one with its collapse key took its place.",
        ),
        (
            GONE._replace(trimmed=ID),
            [ACCEPTED],
            "It is not kept: it made room for newer ones, or was too old.",
        ),
        (
            GONE,
            [ACCEPTED],
            "a newer one with its collapse key took its place, or it was taken out.",
        ),
        (GONE, [], "It is not kept: it expired, was replaced, recalled or trimmed, or never was"),
        (KEPT, [ACCEPTED], "No device of the user has connected yet"),
        (KEPT, [SENT], "No node remembers who published it"),
        (KEPT, [seen("accepted", 0, nodes=("n9",))], "Has ended, and its journal with it: n9."),
        (KEPT._replace(listeners={"n8.1": "tv"}), [SENT], "Has ended, and its journal with it: n8"),
    ],
)
def test_what_else_there_is_to_say(kept: Kept, events: list[Seen], note: str) -> None:
    assert note in told(kept, *events).note


def test_a_node_that_did_not_answer_is_named() -> None:
    silent: Mapping[str, Answer | None] = {"n1": Answer([ACCEPTED], [], None), "n2": None}
    note = "Did not answer in time, so what they did is missing here: n2."
    assert note in timeline(ID, FEED, KEPT, silent).note
    assert note in unknown(ID, silent).note
    assert "Name the user" in unknown(ID, silent).note


def test_what_is_over_is_not_owed_to_anyone() -> None:
    kept = GONE._replace(cursors={"phone": 0, "tv": 0}, listeners=ONLINE, withdrawn="recalled")
    assert told(kept, ACCEPTED).devices == []
    (device,) = told(kept, ACCEPTED, SENT).devices
    assert device == DeviceStatus("phone", "sent", AT + 2, "it was not acknowledged")


EXPIRED = KEPT._replace(expires=AT + 5_000)
RECALLED = GONE._replace(withdrawn="recalled")
RECALL = seen("withdrawn", 1, "n2", reason="recalled")


@pytest.mark.parametrize(
    ("kept", "after", "events", "devices"),
    [
        # An ack of what followed it, after it had ended, by a device that never had it.
        (EXPIRED, 8_000, [], []),
        (EXPIRED, 4_000, [], ["acked"]),
        (EXPIRED, 8_000, [SENT], ["acked"]),
        (RECALLED, 2_000, [RECALL], []),
        (RECALLED, 2_000, [SENT, RECALL], ["sent"]),
        (RECALLED, 500, [SENT, RECALL], ["acked"]),
        (GONE, 500, [ACCEPTED], []),
        (GONE, 500, [SENT], ["acked"]),
        (GONE._replace(withdrawn="acked"), 500, [], ["acked"]),
    ],
)
def test_an_ack_counts_only_from_a_device_that_had_it(
    kept: Kept, after: int, events: list[Seen], devices: list[str]
) -> None:
    found = told(kept._replace(acked=[Acked("phone", AT + after)]), *events)
    assert [each.status for each in found.devices] == devices
