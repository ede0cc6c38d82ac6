"""What is said of a Redis by what it says of itself, where no such one can be started."""

import pytest

from pushsvc.server.findings import State
from pushsvc.server.redis_doctor import clock, followed, memory, names, replicas, topology, version
from pushsvc.settings import Durability
from pushsvc.store.inspection import Server
from tests.support.doctor import settings_of


def test_a_redis_that_is_too_old_fails() -> None:
    old = Server("one", told={"server": "redis", "version": "6.2.14"})
    finding = version(old)
    assert finding.state is State.FAIL
    assert "Redis 6.2.14" in finding.what
    assert "7.0" in finding.change
    for told in ({"server": "valkey", "version": "8.1.0"}, {"server": "redis", "version": "10.0"}):
        assert version(Server("one", told=told)).state is State.OK
    assert version(Server("one", info={"redis_version": "5.0.1"})).state is State.FAIL
    assert version(Server("one")).state is State.SKIP


@pytest.mark.parametrize(("redis", "state", "side"), [
    (1000.0, State.OK, ""), (1009.0, State.OK, ""),
    (1012.0, State.FAIL, "11 s behind one"), (985.0, State.FAIL, "15 s ahead of one"),
])  # fmt: skip
def test_clocks_differ_by_what_tokens_are_granted_and_no_more(
    redis: float, state: State, side: str
) -> None:
    finding = clock(Server("one", sent=1000.0, time=redis, heard=1001.0))
    assert finding.state is state
    assert side in finding.what


def test_what_a_service_hides_is_skipped() -> None:
    hidden = Server("one", info={})
    assert [each.state for each in memory(hidden)] == [State.SKIP]
    assert replicas(hidden, Durability.REPLICA).state is State.SKIP
    assert followed([hidden, Server("two", info={"connected_slaves": "1"})]).state is State.SKIP


@pytest.mark.parametrize(("url", "states"), [
    ("redis+sentinel://s1:26379/main", [State.WARN]),
    ("redis+sentinel://s1:26379,s2:26379/main", []),
    ("redis+cluster://c1:6379", [State.WARN]),
    ("redis://c1:6379", []),
])  # fmt: skip
def test_an_address_that_names_one_of_several_servers_is_told(
    url: str, states: list[State]
) -> None:
    assert [each.state for each in topology(settings_of(url), [], 0)] == states


def test_a_key_that_somebody_else_made_is_no_name() -> None:
    assert names(frozenset({"u:%FF%FE", "u:%C3%A9"})).state is State.OK
