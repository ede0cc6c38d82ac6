"""What a process that serves says of what it waits for."""

from structlog.testing import capture_logs

from pushsvc.server.process import PATIENCE, Waiting
from pushsvc.settings import Settings

NO_LEASE = ["the lease is not held: Redis cannot be reached, or was too slow"]


def test_a_node_that_starts_says_once_that_redis_does_not_answer_it() -> None:
    waiting = Waiting(Settings())
    with capture_logs() as logged:
        for now in (0.0, PATIENCE - 0.1, PATIENCE, 2 * PATIENCE):
            waiting.look(NO_LEASE, now)
    (told,) = logged
    assert "--redis-url" in told["event"]


def test_a_worker_that_is_slow_to_begin_is_not_taken_for_a_redis_that_does_not_answer() -> None:
    waiting = Waiting(Settings())
    with capture_logs() as logged:
        waiting.look(["starting"], 0.0)
        waiting.look(NO_LEASE, PATIENCE)
        waiting.look([], PATIENCE + 1)
        waiting.look(NO_LEASE, 2 * PATIENCE + 0.5)
    assert logged == []
