"""What the node says of itself: ``/openapi.json``, ``/asyncapi.json`` and ``/docs``."""

import functools
from typing import ClassVar

from pushsvc.protocol import encoding
from pushsvc.web.base import Handler
from pushsvc.web.spec import asyncapi, openapi
from pushsvc.web.spec.page import POLICY, page


# Made when they are first asked for: a node without readers need not know itself.
@functools.cache
def _openapi() -> bytes:
    return encoding.encode(openapi.document()) + b"\n"


@functools.cache
def _asyncapi() -> bytes:
    return encoding.encode(asyncapi.document()) + b"\n"


@functools.cache
def _page() -> bytes:
    return page(openapi.document(), asyncapi.document())


class HomeHandler(Handler):
    """``/``, where a reader with a browser begins."""

    route: ClassVar[str] = "home"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        self.redirect("/docs")

    head = get


class OpenAPIHandler(Handler):
    """The HTTP API, as OpenAPI 3.1."""

    route: ClassVar[str] = "openapi"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(_openapi())

    head = get


class AsyncAPIHandler(Handler):
    """The messages of the socket, as AsyncAPI 3.0."""

    route: ClassVar[str] = "asyncapi"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(_asyncapi())

    head = get


class DocsHandler(Handler):
    """Both documents, as a page that needs nothing from anywhere else."""

    route: ClassVar[str] = "docs"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.finish(_page())

    head = get
