"""Where devices are reached while they are away: kept by mailbox, each address of one device only.

A registration counts only while the key of its address names its mailbox and device: that key is
written before the registration, and removed after it. So whoever reads first the registration and
then the key, and finds another name there, knows that the registration is void.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pushsvc.errors import PushError, TooManyDevices, checked
from pushsvc.protocol import feeds
from pushsvc.protocol.names import named, stored
from pushsvc.protocol.push import MAX_DEVICES, REGISTERED_SECONDS, PushRegistration
from pushsvc.protocol.revocation import Revocation, token_key
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command

_PAGE: Final = 256
"""Registrations of a token that are looked at together."""
_LASTS: Final = REGISTERED_SECONDS * 1000
"""Milliseconds."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PushRegistration).decode


class Held(NamedTuple):
    """A registration, and what Redis has of it."""

    mailbox: str
    device: str
    registration: PushRegistration
    value: bytes


class PushRegistrations:
    """The push registrations of all mailboxes.

    A coroutine raises ``PushError`` where Redis cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def register(self, mailbox: str, device: str, registration: PushRegistration) -> bool:
        """Keep a registration; its address is that of no other device from now on.

        Returns:
            Whether the device was not registered, or with another address.

        Raises:
            TooManyDevices: so many devices of the mailbox are registered.
        """
        keys, redis = self._redis.keys, self._redis
        held = await self._held(mailbox)
        if device not in {each.device for each in held} and len(held) >= MAX_DEVICES:
            void = [
                each for each, good in zip(held, await self.good(held), strict=True) if not good
            ]
            if not void:
                raise _too_many()
            for each in void:
                await self.drop(each)
        owner, whose = self._owner(registration), _whose(mailbox, device)
        if registration.token_key:
            token = keys.push_token(registration.token_key)
            await self._all([("HSET", token, whose, 1), ("PEXPIRE", token, _LASTS)])
        before = await redis.one("SET", owner, whose, "EX", REGISTERED_SECONDS, "GET")
        old = await redis.run(
            "push_register", (keys.devices(mailbox),), stored(device), _encode(registration),
            MAX_DEVICES, _LASTS,
        )  # fmt: skip
        if old is None:
            await redis.run("push_remove", (owner,), whose)
            raise _too_many()
        if before is not None and before.decode() != whose:
            await self._evict(before.decode(), registration)
        if not old:
            return True
        replaced = _decode(old)
        if self._owner(replaced) != owner:
            await redis.run("push_remove", (self._owner(replaced),), whose)
            return True
        return False

    async def of(self, mailbox: str) -> Mapping[str, PushRegistration]:
        """Device to registration, of those that count."""
        held = await self._held(mailbox)
        good = await self.good(held)
        return {
            each.device: each.registration
            for each, counts in zip(held, good, strict=True)
            if counts
        }

    async def remove(self, mailbox: str, device: str, only: str = "") -> bool:
        """Remove the registration of a device.

        Args:
            mailbox: whose.
            device: which one.
            only: the id of the registration that is meant; empty for any.

        Returns:
            Whether there was one.
        """
        value = await self._redis.one("HGET", self._redis.keys.devices(mailbox), stored(device))
        if value is None:
            return False
        held = Held(mailbox, device, _decode(value), value)
        if only and held.registration.id != only:
            return False
        if await self.drop(held):
            return True
        return False if only else await self.remove(mailbox, device)  # it was changed meanwhile

    async def drop(self, held: Held) -> bool:
        """Remove a registration that was read, unless it was changed since; whether it was."""
        keys = self._redis.keys
        device = stored(held.device)
        gone = await self._redis.run(
            "push_remove", (keys.devices(held.mailbox),), held.value, device
        )
        if gone:
            whose = _whose(held.mailbox, held.device)
            await self._redis.run("push_remove", (self._owner(held.registration),), whose)
            if held.registration.token_key:
                token = keys.push_token(held.registration.token_key)
                await self._redis.one("HDEL", token, whose)
        return bool(gone)

    async def remove_all(self, mailbox: str) -> int:
        """Remove the registrations of a mailbox; how many there were."""
        return sum([await self.drop(each) for each in await self._held(mailbox)])

    async def revoked(self, namespace: str, revocation: Revocation) -> None:
        """Remove what tokens registered that are revoked now.

        Args:
            namespace: where.
            revocation: of a user's tokens, of one token, or of all.
        """
        keys = self._redis.keys
        if revocation.token_id is not None:
            await self._token_revoked(token_key(revocation.token_id))
        elif revocation.user is not None:
            for each in await self._held(feeds.mailbox(revocation.user, namespace)):
                if each.registration.issued <= revocation.issued_before:
                    await self.drop(each)
        else:
            since = keys.push_since(namespace)
            await self._redis.run(
                "push_since", (since,), revocation.issued_before, REGISTERED_SECONDS
            )

    async def _token_revoked(self, key: int) -> None:
        members = await self._redis.one("HKEYS", self._redis.keys.push_token(key))
        for first in range(0, len(members), _PAGE):
            for member in members[first : first + _PAGE]:
                mailbox, device = _parted(member.decode())
                for each in await self._held(mailbox, device):
                    if each.registration.token_key == key:
                        await self.drop(each)
        # What was dropped has left it; what stays is of registrations that are gone.
        if members:
            await self._redis.one("DEL", self._redis.keys.push_token(key))

    async def good(self, held: Sequence[Held]) -> list[bool]:
        """Whether registrations, as they were read before, count.

        Returns:
            For each False where its address is another device's, or its token was revoked with all
            others.
        """
        if not held:
            return []
        names = sorted({feeds.namespace_of(each.mailbox) for each in held})
        answers = await self._all(
            [("GET", self._owner(each.registration)) for each in held]
            + [("GET", self._redis.keys.push_since(name)) for name in names]
        )
        since = dict(zip(names, answers[len(held) :], strict=True))
        found = []
        for each, owner in zip(held, answers, strict=False):
            voided = since[feeds.namespace_of(each.mailbox)]
            owned = owner is not None and owner.decode() == _whose(each.mailbox, each.device)
            found.append(owned and (voided is None or each.registration.issued > int(voided)))
        return found

    def renewed(self, mailbox: str, registration: PushRegistration) -> list[Command]:
        """The commands by which a registration lasts on, for something was sent to it."""
        return [
            ("PEXPIRE", self._owner(registration), _LASTS),
            ("PEXPIRE", self._redis.keys.devices(mailbox), _LASTS),
        ]

    async def stopped(self) -> frozenset[str]:
        """The push providers that an operator stopped."""
        names = await self._redis.one("HKEYS", self._redis.keys.push("stopped"))
        return frozenset(each.decode() for each in names)

    async def stop(self, provider: str, by: str) -> None:
        """Stop a push provider on all nodes; its pushes wait."""
        seconds, micros = await self._redis.one("TIME")
        at = int(seconds) * 1000 + int(micros) // 1000
        await self._redis.one("HSET", self._redis.keys.push("stopped"), provider, f"{at} {by}")

    async def go_on(self, provider: str) -> None:
        """Let a push provider go on that was stopped."""
        await self._redis.one("HDEL", self._redis.keys.push("stopped"), provider)

    async def secret(self) -> bytes:
        """The key of capabilities, 32 bytes, the same for all nodes; made where there is none."""
        key = self._redis.keys.push("secret")
        _, value = await self._all([("SET", key, secrets.token_hex(32), "NX"), ("GET", key)])
        return bytes.fromhex(value.decode())

    # ---------------------------------------------------------------------------------------------

    async def _held(self, mailbox: str, device: str | None = None) -> list[Held]:
        """What is registered of a mailbox, or of one of its devices."""
        key = self._redis.keys.devices(mailbox)
        if device is not None:
            value = await self._redis.one("HGET", key, stored(device))
            return [] if value is None else [Held(mailbox, device, _decode(value), value)]
        fields = await self._redis.one("HGETALL", key)
        return [held_of(mailbox, fields[i], fields[i + 1]) for i in range(0, len(fields), 2)]

    async def _evict(self, whose: str, taken: PushRegistration) -> None:
        """Remove the registration of who had an address that is another device's now."""
        mailbox, device = _parted(whose)
        held = [
            each
            for each in await self._held(mailbox, device)
            if self._owner(each.registration) == self._owner(taken)
        ]
        for each, good in zip(held, await self.good(held), strict=True):
            if not good:
                await self.drop(each)

    def _owner(self, registration: PushRegistration) -> str:
        address = f"{registration.provider}\0{registration.address}"
        return self._redis.keys.push_owner(hashlib.sha256(address.encode()).hexdigest()[:32])

    async def _all(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._redis.submit(commands)
        return [checked(each) for each in answers]


def held_of(mailbox: str, device: bytes, value: bytes) -> Held:
    """A registration as a hash of Redis has it."""
    return Held(mailbox, named(device.decode()), _decode(value), value)


def _whose(mailbox: str, device: str) -> str:
    return f"{mailbox} {stored(device)}"


def _parted(whose: str) -> tuple[str, str]:
    mailbox, _, device = whose.partition(" ")
    return mailbox, named(device)


def _too_many() -> PushError:
    return TooManyDevices(
        f"{MAX_DEVICES} devices of this user are registered for pushes, which is all there may be: "
        "remove one first"
    )
