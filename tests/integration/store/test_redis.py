"""Commands by the names of scripts and keys."""

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.scripts import Scripts
from tests.support.redis import redis_at


async def test_a_script_is_called_with_its_keys_before_what_else_it_is_given(
    valkey: EmbeddedServer, prefix: str
) -> None:
    commands = redis_at(valkey.url, prefix)
    nodes = (commands.keys.nodes,)
    digest = Scripts().digests["lease"]
    assert commands.script("lease", nodes, "n1", 5000, "1") == (
        "EVALSHA", digest, 1, *nodes, "n1", 5000, "1",
    )  # fmt: skip
    _, held, *live = await commands.run("lease", nodes, "n1", 5000, "1")
    assert (held, live) == (1, [b"n1"])
    await commands.aclose()
