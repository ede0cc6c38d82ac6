"""Registrations and messages for the tests of push providers."""

from typing import Any

from hypothesis import strategies as st

from pushsvc.protocol.push import PushRegistration, PushText
from pushsvc.push.provider import PushMessage


def registration(**fields: Any) -> PushRegistration:
    """A registration of an app for APNs, where nothing else is said."""
    usual = {"id": "r1", "provider": "apns", "address": f"{1:064x}", "topic": "com.example.app"}
    return PushRegistration(**{**usual, **fields})


def message(**fields: Any) -> PushMessage:
    """A message with a title and a body, where nothing else is said."""
    usual: dict[str, Any] = {
        "notification": "1764547200000-0",
        "capability": "pc1.c2VhbGVk",
        "text": PushText(title="Your order", body="It is on its way."),
        "badge": None,
        "tag": "",
        "group": "",
        "ttl": 3600,
        "urgency": "normal",
    }
    return PushMessage(**{**usual, **fields})


def _bounded(most: int) -> st.SearchStrategy[str]:
    """Texts of so many bytes, with characters of all lengths, and those that JSON escapes."""
    some = st.sampled_from('aé…😀"\\\n/') | st.characters(exclude_categories=["Cs", "Cc"])
    texts = st.text(some, max_size=40).flatmap(
        lambda part: st.integers(0, most // max(len(part.encode()), 1)).map(lambda n: part * n)
    )
    return texts.filter(lambda text: len(text.encode()) <= most)


texts = st.builds(
    PushText,
    title=_bounded(256),
    body=_bounded(2000),
    url=_bounded(1024),
    icon=_bounded(1024),
    urgency=st.sampled_from(["very-low", "low", "normal", "high"]),
)

messages = st.builds(
    PushMessage,
    notification=st.just("1764547200000-0"),
    capability=st.integers(0, 2800).map(lambda length: "c" * length),
    text=st.none() | texts,
    badge=st.none() | st.integers(0, 2**31 - 1),
    tag=_bounded(256),
    group=_bounded(256),
    ttl=st.integers(0, 10**9),
    urgency=st.sampled_from(["very-low", "low", "normal", "high"]),
)
"""What a node may have a provider tell."""
