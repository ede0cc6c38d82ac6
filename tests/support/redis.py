"""A way to Redis for one test."""

from pushsvc.store.pipeline_queue import PipelineQueue
from pushsvc.store.redis import Redis
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.topology import connector


def redis_at(url: str, prefix: str, seconds: float = 5) -> Redis:
    """Commands to the server at a URL, which has the given time to answer."""
    scripts = Scripts()
    return Redis(PipelineQueue("test", connector(url)(seconds), scripts), Keys(prefix), scripts)
