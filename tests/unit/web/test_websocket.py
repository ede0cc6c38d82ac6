"""The checks of the handshake that need no socket."""

import pytest
from tornado.httputil import HTTPHeaders

from pushsvc.errors import InvalidRequest
from pushsvc.web.websocket import subprotocol_of


def headers(**values: str) -> HTTPHeaders:
    return HTTPHeaders({name.replace("_", "-"): value for name, value in values.items()})


def test_a_token_may_be_offered_as_a_subprotocol() -> None:
    offered = headers(Sec_WebSocket_Protocol="pushsvc.v1.json, bearer.aaa.bbb.ccc")
    assert subprotocol_of(offered) == ("pushsvc.v1.json", "aaa.bbb.ccc")
    assert subprotocol_of(headers()) == (None, None)


@pytest.mark.parametrize("offered", ["graphql-ws", "bearer.aaa", "", "pushsvc.v2.json"])
def test_subprotocols_without_one_that_is_spoken_are_refused(offered: str) -> None:
    with pytest.raises(InvalidRequest, match=r"pushsvc\.v1\.json"):
        subprotocol_of(headers(Sec_WebSocket_Protocol=offered))
