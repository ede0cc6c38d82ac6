"""The served documents, read by programs that others wrote; one in Python is in the unit tests."""

import json
from pathlib import Path

from pushsvc.protocol import encoding
from pushsvc.web.spec import asyncapi, openapi
from tests.documents.tools import need_tools, node

LEFT = {
    # The success of a WebSocket's handshake is 101.
    ("operation-2xx-response", "#/paths/~1v1~1ws/get/responses"),
    ("operation-success-response", "paths//v1/ws/get/responses"),
    # 3.0 is what most tools read, and nothing of 3.1 is used.
    ("asyncapi-latest-version", "asyncapi"),
    # Whom to ask is known to who runs the node.
    ("info-contact", "info"),
    ("asyncapi-info-contact", "info"),
}
"""What validators would have otherwise, and why it stays."""


def test_validators_find_nothing_in_the_documents(tmp_path: Path) -> None:
    need_tools()
    files = []
    for name, document in (("openapi", openapi.document()), ("asyncapi", asyncapi.document())):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_bytes(encoding.encode(document))
    found = [json.loads(line) for line in node("validate.mjs", *files).splitlines()]
    assert {(each["rule"], each["where"]) for each in found} == LEFT, found
