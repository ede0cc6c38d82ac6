"""The shapes of pushes, as Redis keeps them."""

import msgspec

from pushsvc.protocol.push import PushRegistration, PushText


def test_what_is_not_said_takes_no_room() -> None:
    assert msgspec.json.encode(PushText("Hello")) == b'{"title":"Hello"}'


def test_a_registration_is_read_as_written_and_what_a_newer_node_adds_is_passed_over() -> None:
    made = PushRegistration("r1", "web", "https://push.example/1", token_key=2**64 - 1)
    written = msgspec.to_builtins(made) | {"later": 1}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(written), type=PushRegistration) == made
