"""What ``pushsvc doctor`` finds, as a test asks for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pushsvc.server.findings import Finding, State
from pushsvc.settings import Settings, load
from tests.support.nodes import SECRET


def settings_of(redis_url: str = "redis://127.0.0.1:1/0", **fields: Any) -> Settings:
    """Settings as a node has them; None for one that is not to be there."""
    given: dict[str, Any] = {
        "redis_url": redis_url, "jwt_secret": SECRET, "host": "127.0.0.1", "port": "0",
        "admin_host": "127.0.0.1", "admin_port": "0",
    }  # fmt: skip
    return load({}, {name: value for name, value in (given | fields).items() if value is not None})


def found(findings: AsyncIterator[Finding]) -> list[Finding]:
    """All of them."""

    async def collect() -> list[Finding]:
        return [finding async for finding in findings]

    return asyncio.run(collect())


def of(findings: Sequence[Finding], check: str) -> list[Finding]:
    """Those of one check."""
    return [finding for finding in findings if finding.check == check]


def one(findings: Sequence[Finding], check: str, state: State) -> Finding:
    """The only one of a check, which ended in this state; what is not ok says what to change."""
    (finding,) = of(findings, check)
    assert finding.state == state, str(finding)
    assert bool(finding.change) == (state is not State.OK), str(finding)
    return finding
