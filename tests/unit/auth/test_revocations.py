"""The table of revoked tokens that a process holds."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.revocations import PRUNE_SECONDS, Revocations
from pushsvc.protocol.revocation import Revocation

NOW = 1000.0
users = st.sampled_from(["ann", "bob"])
token_ids = st.none() | st.sampled_from(["t1", "t2", ""])
times = st.integers(0, 5)
ends = st.integers(998, 1003)
entries = st.lists(
    st.builds(Revocation, ends, users, issued_before=times)
    | st.builds(Revocation, ends, token_id=st.sampled_from(["t1", "t2"]))
    | st.builds(Revocation, ends, issued_before=times),
    unique_by=lambda one: (one.user, one.token_id),
)


def table(*revoked: Revocation, now: float = NOW) -> Revocations:
    found = Revocations()
    found.load(revoked, now)
    return found


def test_a_user_is_revoked_up_to_the_time_and_not_after() -> None:
    found = table(Revocation(2000, "ann", issued_before=500))
    assert found.revoked("ann", None, 499, NOW)
    assert found.revoked("ann", "t", 500, NOW)
    assert not found.revoked("ann", None, 501, NOW)
    assert not found.revoked("bob", None, 499, NOW)


def test_a_token_that_does_not_say_when_it_was_issued_counts_as_old() -> None:
    assert table(Revocation(2000, "ann", issued_before=0)).revoked("ann", None, None, NOW)
    assert table(Revocation(2000, issued_before=0)).revoked("ann", None, None, NOW)


def test_one_token_is_revoked_by_its_id() -> None:
    found = table(Revocation(2000, token_id="t1"))
    assert found.revoked("ann", "t1", 999, NOW)
    for other in ("t2", "", None):
        assert not found.revoked("ann", other, 0, NOW)


def test_all_tokens_are_revoked_up_to_the_time_and_not_after() -> None:
    found = table(Revocation(2000, issued_before=500))
    assert found.revoked("ann", None, 500, NOW)
    assert not found.revoked("ann", None, 501, NOW)


def test_it_is_known_when_tokens_must_have_been_issued_to_be_good() -> None:
    found = table(Revocation(2000, "ann", issued_before=500))
    assert [found.issued_after(user) for user in ("ann", "bob")] == [500, -1]
    found = table(Revocation(2000, "ann", issued_before=500), Revocation(2000, issued_before=600))
    assert [found.issued_after(user) for user in ("ann", "bob")] == [600, 600]


def test_a_revocation_ends() -> None:
    found = table(
        Revocation(2000, "ann", issued_before=5), Revocation(2000, token_id="t"),
        Revocation(2000, issued_before=1),
    )  # fmt: skip
    for user, token_id, issued in (("ann", None, 5), ("x", "t", 9), ("x", None, 1)):
        assert found.revoked(user, token_id, issued, 1999.9)
        assert not found.revoked(user, token_id, issued, 2000)


def test_what_is_over_is_dropped_but_not_at_every_turn() -> None:
    found = table(*(Revocation(1010 + i, f"u{i}") for i in range(10)))
    found.prune(NOW + 20)
    assert len(found) == 10
    found.prune(NOW + PRUNE_SECONDS)
    assert len(found) == 0
    assert not found.active


def test_loading_afresh_forgets_what_was_there() -> None:
    found = table(Revocation(2000, "ann", issued_before=5), Revocation(2000, issued_before=1))
    found.load([Revocation(2000, "bob", issued_before=5)], NOW)
    assert len(found) == 3
    found.load([Revocation(2000, token_id="t")], NOW, afresh=True)
    assert not found.revoked("ann", None, 0, NOW)
    assert found.revoked("ann", "t", 0, NOW)
    found.load([], NOW, afresh=True)
    assert not found.active


@given(entries, users, token_ids, st.none() | times, st.sampled_from([0.0, NOW]))
def test_a_token_is_revoked_where_any_entry_says_so(
    revoked: list[Revocation], user: str, token_id: str | None, issued: int | None, loaded: float
) -> None:
    def covers(one: Revocation) -> bool:
        if one.until <= NOW:
            return False
        if one.token_id is not None:
            return one.token_id == token_id
        return one.user in (None, user) and (issued or 0) <= one.issued_before

    found = table(*revoked, now=loaded)
    assert found.revoked(user, token_id, issued, NOW) == any(map(covers, revoked))
    assert found.active == any(one.until > loaded for one in revoked)
