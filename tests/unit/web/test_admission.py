"""Who is let in, and who of them is on the way."""

from types import SimpleNamespace
from typing import Any, cast

from pushsvc.node.connections import Connections
from pushsvc.web.admission import Admission


class NoConnections(list[object]):
    """A node without connections."""

    readiness = SimpleNamespace(lost=0)


def test_a_handshake_that_was_let_in_counts_once_however_far_it_is() -> None:
    nobody: Any = None
    admission = Admission(
        nobody, nobody, cast(Connections, NoConnections()), nobody, nobody,
        max_connections=10, max_handshakes=10,
    )  # fmt: skip
    with admission.entered():
        assert (admission.under_way, admission.in_flight) == (1, 0)
        with admission.handshake(entered=True):
            assert (admission.under_way, admission.in_flight) == (1, 1)
            with admission.handshake():  # a poll
                assert (admission.under_way, admission.in_flight) == (2, 2)
        assert (admission.under_way, admission.in_flight) == (1, 0)
    assert admission.under_way == 0
