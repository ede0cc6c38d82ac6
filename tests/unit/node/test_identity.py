"""Who a node is, before and after its lease has lapsed."""

from pushsvc.feeds.nodes import node_of
from pushsvc.node.identity import NodeIdentity, new_node_id


def test_no_two_nodes_have_one_id() -> None:
    assert len({new_node_id() for _ in range(1000)}) == 1000
    assert NodeIdentity().id != NodeIdentity().id


def test_a_connection_is_named_by_the_id_that_the_node_has_now() -> None:
    identity = NodeIdentity("a")
    before = identity.connection_id(31)
    identity.become("b")
    assert (before, identity.connection_id(31)) == ("a.1f", "b.1f")
    assert identity.connection_id(31, "a") == before
    assert node_of(before) == "a"


def test_former_ids_are_kept_until_nothing_is_registered_under_them() -> None:
    identity = NodeIdentity("a")
    identity.become("b")
    former = identity.former
    identity.become("c")  # while what was registered under the first is still being removed
    identity.cleaned(former)
    assert identity.former == ("b",)
