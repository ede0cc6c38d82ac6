"""Where a client has its token from."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

Token = str | Callable[[bool], str | Awaitable[str]]
"""A token, or a function that returns one: it is told whether the last one was refused.

A plain function is called in a thread, so that it may wait. It is called again when the token
expires or is refused; what it raises is tried again later, as a connection is, save a
``PushError``, which ends the client.
"""

TIMEOUT: Final = 30.0
"""Seconds that a function has to return a token."""


async def ask_for_token(provider: Token, *, refused: bool) -> str:
    """A token of a provider, whatever kind it is.

    Raises:
        TimeoutError: it took too long.
    """
    if isinstance(provider, str):
        return provider
    async with asyncio.timeout(TIMEOUT):
        if inspect.iscoroutinefunction(provider):
            return str(await provider(refused))
        token = await asyncio.to_thread(provider, refused)
        return await token if inspect.isawaitable(token) else token
