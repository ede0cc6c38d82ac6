"""Commands by the names of scripts and keys."""

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.calls import Run
from pushsvc.store.scripts import Scripts
from tests.support.redis import redis_at


async def test_a_script_is_run_with_its_keys_and_what_else_it_is_given(
    valkey: EmbeddedServer, prefix: str
) -> None:
    commands = redis_at(valkey.url, prefix)
    nodes = (commands.keys.nodes,)
    script = Scripts().by_name["lease"]
    assert commands.script("lease", nodes, "n1", 5000, "1") == Run(
        (script, nodes, ("n1", 5000, "1"))
    )
    _, held, *live = await commands.run("lease", nodes, "n1", 5000, "1")
    assert (held, live) == (1, [b"n1"])
    await commands.aclose()
