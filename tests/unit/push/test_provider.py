"""What all push providers have in common."""

from pushsvc.protocol.push import PushText
from pushsvc.push.provider import Outcome, PushMessage, Verdict


def test_ids_only_leave_nothing_of_the_text() -> None:
    text = PushText(title="Shipped", body="Order 17", url="/orders/17")
    message = PushMessage("1-0", "pc1.x", text, 3, "order-17", "order.shipped", 60, "high")
    bare = message.ids_only()
    assert bare == message._replace(text=None)
    assert "17" not in repr(bare._replace(tag=""))


def test_a_verdict_asks_for_no_pause_unless_it_says_so() -> None:
    assert Verdict(Outcome.SENT) == (Outcome.SENT, "", 0.0)
