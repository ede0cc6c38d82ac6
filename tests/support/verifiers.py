"""Verifiers of tokens as the tests need them: of one shared secret."""

import time
from collections.abc import Callable

from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.keys import secret_keys
from pushsvc.auth.tokens import Verifier


def shared_verifier(
    secret: str,
    *algorithms: str,
    audience: str,
    issuer: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Verifier:
    keys = secret_keys([secret], algorithms)
    reader = Reader(Rules(audience=(audience,), issuer=issuer))
    return Verifier(keys, algorithms=keys.algorithms, reader=reader, clock=clock)
