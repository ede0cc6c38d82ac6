"""Names of feeds: each can be taken apart again, and no two kinds or namespaces meet."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol.feeds import (
    BROADCAST,
    broadcast,
    by_node,
    fields_of,
    is_broadcast,
    mailbox,
    name_of,
    namespace_of,
    plain,
    receipts,
    topic,
)
from pushsvc.protocol.names import is_name

NAMES = st.text(
    st.sampled_from("ab.~%/{},:b ") | st.characters(exclude_categories=("Cs", "Cc")), min_size=1
).filter(is_name)
NAMESPACES = st.just("") | st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)


@given(NAMES, NAMESPACES)
def test_a_feed_says_whose_it_is(name: str, namespace: str) -> None:
    for make in (mailbox, topic, receipts):
        feed = make(name, namespace)
        assert name_of(feed) == name
        assert namespace_of(feed) == namespace
        assert not is_broadcast(feed)
    assert namespace_of(broadcast(namespace)) == namespace
    assert is_broadcast(broadcast(namespace))


@given(NAMES, NAMESPACES)
def test_to_its_own_clients_a_feed_is_called_as_in_the_default_namespace(
    name: str, namespace: str
) -> None:
    for make in (mailbox, topic, receipts):
        assert plain(make(name, namespace)) == make(name)


@given(NAMES, NAMESPACES, NAMES, NAMESPACES)
def test_feeds_are_the_same_where_kind_namespace_and_name_are(
    one: str, here: str, other: str, there: str
) -> None:
    made = [
        make(name, namespace)
        for make in (mailbox, topic, receipts)
        for name, namespace in ((one, here), (other, there))
    ]
    assert len(set(made)) == (3 if (one, here) == (other, there) else 6)
    assert len({*made, broadcast(here), broadcast(there)}) == len(set(made)) + (
        1 if here == there else 2
    )


@given(NAMES, NAMESPACES)
def test_a_feed_can_stand_in_a_key(name: str, namespace: str) -> None:
    for feed in (mailbox(name, namespace), topic(name, namespace), broadcast(namespace)):
        assert not set(feed) & set("{}~, *")


@given(NAMES)
def test_single_connections_listen_to_mailboxes_and_nodes_to_the_rest(name: str) -> None:
    assert not by_node(mailbox(name))
    assert by_node(topic(name))
    assert by_node(BROADCAST)


@given(NAMES)
def test_a_message_names_its_topic_or_the_broadcast_and_no_mailbox(name: str) -> None:
    assert fields_of(topic(name)) == {"topic": name}
    assert fields_of(BROADCAST) == {"broadcast": True}
    assert fields_of(mailbox(name)) == {}
