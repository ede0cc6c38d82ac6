"""Close codes: their ranges say what a client does."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.codes import Close, means_reconnect
from pushsvc.protocol import frames
from tests.support.documents import PROTOCOL, table


def test_every_close_code_is_documented_with_what_to_do() -> None:
    documented = {
        int(code): (reason, act) for code, reason, act in table(PROTOCOL, "## Close codes")
    }
    assert set(documented) == set(Close)
    for code in Close:
        reason, act = documented[code]
        if code.reason:
            assert reason == code.reason
        assert len(code.reason.encode()) <= 123
        if code >= 4000:
            assert act.startswith("reconnect" if means_reconnect(code) else "stop")


@given(st.integers(1000, 4999))
def test_only_a_code_of_the_upper_thousand_ends_for_good(code: int) -> None:
    assert means_reconnect(code) == (code < 4500)


def test_every_code_with_its_reason_fits_a_close_frame() -> None:
    for code in Close:
        assert (
            frames.encode_close(code, code.reason)[2:]
            == code.to_bytes(2, "big") + code.reason.encode()
        )
