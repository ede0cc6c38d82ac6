"""How far a notification is with each device, and why it is no further."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.admin.device_status import DeviceStatus, device_statuses, many
from pushsvc.feeds.event_log import Answer, ConnectionPosition, Seen
from pushsvc.feeds.trace_answers import Kept
from pushsvc.protocol import ids

AT = 1_764_000_000_000
ID = AT << 64
KEPT = Kept(now=AT + 10_000, expires=AT + 60_000, head=ID)
DEVICES = ["laptop", "phone", "watch"]


def sent(device: str, attempt: int = 1, connection: str = "n1.1") -> Seen:
    return Seen(
        AT / 1000 + attempt, "sent", "u:ann", "n1",
        device=device, connection=connection, attempt=attempt,
    )  # fmt: skip


def place(**fields: Any) -> ConnectionPosition:
    """Where a connection of the phone stands: right before it, with an open window."""
    usual: dict[str, Any] = {
        "connection": "n1.1", "device": "phone", "sent": ids.render(ID - 1),
        "acked": ids.render(ID - 1), "unacked": 0, "window": 64, "writable": True,
    }  # fmt: skip
    return ConnectionPosition(**usual | fields)


def phone(
    kept: Kept, *events: Seen, positions: tuple[ConnectionPosition, ...] = ()
) -> DeviceStatus:
    """How far it is with the phone, which is the only device."""
    (device,) = device_statuses(
        ID, kept, {"n1": Answer(list(events), list(positions), None)}, events, {}
    )
    assert device.device == "phone"
    return device


ONLINE = KEPT._replace(listeners={"n1.1": "phone"}, cursors={"phone": 0})


def test_a_connected_device_that_was_not_sent_it_says_what_it_waits_for() -> None:
    assert "did not tell" in phone(ONLINE).why
    full = phone(ONLINE, positions=(place(unacked=64),))
    assert (full.status, full.time) == ("waiting", None)
    assert full.why == "64 before it are not acknowledged: the window is full"
    assert "too slowly" in phone(ONLINE, positions=(place(writable=False),)).why
    assert phone(ONLINE, positions=(place(),)).why == "connected, waiting for its turn"


def test_a_connection_that_stands_behind_it_has_been_sent_it() -> None:
    """Though no node remembers that any more."""
    behind = place(sent=ids.render(ID), unacked=1)
    assert phone(ONLINE, positions=(behind,)) == DeviceStatus(
        "phone", "sent", None, "not acknowledged yet"
    )


def test_what_is_for_one_device_concerns_no_other() -> None:
    own = KEPT._replace(cursors={"phone": ID - 9, "tab": ID - 9}, device="tab")
    assert [each.device for each in device_statuses(ID, own, {}, (), {})] == ["tab"]


def test_tries_are_counted() -> None:
    assert phone(ONLINE, sent("phone"), sent("phone", 2)).why == "sent 2 times, not acknowledged"


def test_a_device_that_is_away_is_told_apart_by_whether_it_was_sent_it() -> None:
    before = [(ID - 1, ""), (ID - 2, "tab"), (ID - 5, "phone"), (ID - 9, ""), (ID - 12, "")]
    away = KEPT._replace(cursors={"phone": ID - 9}, before=before)
    never = phone(away)
    assert (never.status, never.time) == ("offline", None)
    assert never.why.endswith("comes back, after 2 others")
    cut = phone(away, sent("phone"))
    assert cut.status == "offline"
    assert "was sent and not acknowledged" in cut.why


def test_a_connection_of_a_node_that_was_not_asked_is_none() -> None:
    dead = KEPT._replace(listeners={"n9.1": "phone"}, cursors={"phone": 0})
    assert phone(dead).status == "offline"


def test_what_is_over_is_owed_to_nobody_who_was_not_sent_it() -> None:
    over = ONLINE._replace(expires=KEPT.now)
    assert device_statuses(ID, over, {"n1": Answer([], [], None)}, [], {}) == []
    assert phone(over, sent("phone")).why == "it was not acknowledged"


@given(
    st.sets(st.sampled_from(DEVICES)),
    st.sets(st.sampled_from(DEVICES)),
    st.sets(st.sampled_from(DEVICES)),
    st.sets(st.sampled_from(DEVICES)),
    st.booleans(),
)
def test_every_device_that_it_concerns_is_told_once_and_no_other(
    known: set[str],
    acked: set[str],
    received: set[str],
    later: set[str],
    owed: bool,  # noqa: FBT001 - a fact
) -> None:
    kept = KEPT._replace(
        cursors=dict.fromkeys(known, 0),
        starts=dict.fromkeys(later, ID),
        expires=KEPT.expires if owed else None,
    )
    events = [sent(device) for device in sorted(received)]
    told = device_statuses(
        ID, kept, {"n1": Answer(events, [], None)}, events, dict.fromkeys(acked, AT)
    )
    names = [each.device for each in told]
    assert names == sorted(acked | received | ((known - later) if owed else set()))
    for each in told:
        assert (each.status == "acked") == (each.device in acked)
        assert each.why or each.status == "acked", "a device that is not done says why"


def test_one_is_one_and_more_are_many() -> None:
    assert [many(1, "other"), many(2, "other"), many(0, "other")] == [
        "1 other", "2 others", "0 others",
    ]  # fmt: skip
    assert many(3, "more") == "3 more"
