"""Where the commands of a node go in a Cluster is what the server says."""

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.cluster import slot_of
from pushsvc.store.permissions import probe
from pushsvc.store.server_connection import Command
from tests.support.failover import ask


@pytest.mark.parametrize("confirm", [("WAIT", 1, 1), ("WAITAOF", 1, 0, 1)])
def test_every_command_of_a_node_goes_where_the_server_says_its_key_is(
    confirm: Command, valkey: EmbeddedServer
) -> None:
    keyless = set()
    for command in probe("the key", confirm):
        try:
            keys = ask(valkey.port, "COMMAND GETKEYS", *command)
        except ResponseError:
            assert slot_of(command) is None, command
            keyless.add(command[0])
        else:
            assert keys == ["the key"]
            assert slot_of(command) == key_slot(b"the key"), command
    assert keyless == {"PING", "TIME", "SCRIPT", confirm[0]}
