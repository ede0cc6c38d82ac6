"""Reaching devices that are away: which ways there are, who is registered, what a push opens."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Final

from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import Claims
from pushsvc.errors import InvalidRequest, InvalidToken, NotFound
from pushsvc.feeds.history import EVERYTHING, History
from pushsvc.feeds.push_registrations import PushRegistrations
from pushsvc.feeds.pushes import Pushes, PushRecord
from pushsvc.feeds.read_state import ReadStates
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.feeds import name_of, namespace_of
from pushsvc.protocol.names import require_name
from pushsvc.protocol.push import REGISTERED_SECONDS, PushRegistration
from pushsvc.protocol.push_capability import Capability, check_form, open_sealed
from pushsvc.protocol.push_registering import WEB, host_of, registration_from
from pushsvc.protocol.read_state import ARCHIVED, READ, Change, Verb
from pushsvc.protocol.revocation import token_key
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.push.provider import Provider
from pushsvc.web.cors import Origins
from pushsvc.web.operation import (
    ANYONE,
    JSON,
    Admitted,
    Answer,
    Operation,
    Request,
    bearer,
    json_answer,
    media_type,
    subject,
)
from pushsvc.web.rates import RequestRates
from pushsvc.web.users import UserOperation

PUSH: Final = "/v1/push"
NOTIFICATION: Final = "/v1/push/notification"
READ_ONE: Final = "/v1/push/read"
DEVICES: Final = "/devices"
DEVICE_PUSH: Final = "/push"
"""What follows a device in a path."""
DEVICE_PUSH_BY_QUERY: Final = "/v1/user/devices/push"
"""The same where the query names user and device."""

MAX_REGISTRATION: Final = 8192
"""Most bytes of a registration's body."""
SECRET_SECONDS: Final = 5.0
"""How long the key of capabilities is kept before it is read again: a Redis that was emptied has
another one."""

_NO_BODY: Final = "send GET without a body"


class PushOperation(Operation):
    """Says by which ways this server reaches devices that are away; needs no token.

    Args:
        providers: by name.
        web_key: of Web Push: the key that pages subscribe with; None without it.
        origins: which pages may ask.
    """

    route: ClassVar[str] = "push"
    allow: ClassVar[str] = "GET, OPTIONS"

    def __init__(
        self, *, providers: Collection[str], web_key: str | None, origins: Origins
    ) -> None:
        super().__init__(origins)
        told: dict[str, Any] = {"providers": sorted(providers)}
        if web_key is not None:
            told[WEB] = {"key": web_key}
        self._told = json_answer(200, told)

    async def admit(self, request: Request) -> Admitted:
        """Let everybody in."""
        self.check_method(request)
        if request.length:
            raise InvalidRequest(_NO_BODY)
        return Admitted(ANYONE, 0)

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        """Answer with what was made of the settings."""
        return self._told


class DevicePushOperation(UserOperation):
    """Registers a device for pushes, says whether it is, and ends that.

    Args:
        registrations: of all devices.
        providers: by name.
        redis_time: now by Redis time, in Unix seconds.
        made: what ``UserOperation`` is made with.
    """

    route: ClassVar[str] = "device_push"
    allow: ClassVar[str] = "GET, PUT, DELETE, OPTIONS"
    bodiless: ClassVar[bool] = True

    def __init__(
        self,
        *,
        registrations: PushRegistrations,
        providers: Mapping[str, Provider],
        redis_time: Callable[[], float],
        **made: Any,
    ) -> None:
        super().__init__(**made)
        self._registrations = registrations
        self._providers = providers
        self._redis_time = redis_time

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Do what the method says."""
        claims = admitted.claims
        mailbox = self.mailbox(request, claims)
        device = require_name(subject(request.device, request.query, "device"), "device")
        if request.method == "PUT":
            media_type(request.headers, JSON)
            return await self._register(mailbox, device, claims, encoding.decode(body))
        if request.method == "DELETE":
            await self._registrations.remove(mailbox, device)
            return Answer(204, b"", ())
        held = (await self._registrations.of(mailbox)).get(device)
        if held is None:
            raise NotFound("this device is not registered for pushes: register it with PUT")
        return json_answer(200, {"device": device, **registered(held)})

    async def _register(self, mailbox: str, device: str, claims: Claims, value: Any) -> Answer:
        """Keep a registration; whether it is new to the device is in the status."""
        asked = registration_from(
            value,
            self._providers,
            at=round(1000 * self._redis_time()),
            token_key=token_key(claims.token_id),
            issued=claims.issued or 0,
        )
        self._providers[asked.provider].check(asked)
        new = await self._registrations.register(mailbox, device, asked)
        return json_answer(201 if new else 200, {"device": device, **registered(asked)})


class DevicesOperation(UserOperation):
    """Lists the devices of a user: where each is, what it has and whether it is registered.

    Args:
        history: of the mailboxes.
        registrations: of all devices.
        made: what ``UserOperation`` is made with.
    """

    route: ClassVar[str] = "devices"
    allow: ClassVar[str] = "GET, OPTIONS"

    def __init__(self, *, history: History, registrations: PushRegistrations, **made: Any) -> None:
        super().__init__(**made)
        self._history = history
        self._registrations = registrations

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        """Answer with them, in order of their names."""
        mailbox = self.mailbox(request, admitted.claims)
        devices, held = await asyncio.gather(
            self._history.devices(mailbox), self._registrations.of(mailbox)
        )
        known = {each.device: each for each in devices}
        told = []
        for name in sorted(known.keys() | held.keys()):
            device = known.get(name)
            acked = None if device is None else device.acked
            told.append(
                {
                    "device": name,
                    "acked": None if acked is None else ids.render(acked),
                    "connections": 0 if device is None else device.connections,
                    "push": registered(held[name]) if name in held else None,
                }
            )
        return json_answer(200, {"devices": told})


def registered(held: PushRegistration) -> dict[str, Any]:
    """A registration as callers are told of it: not where exactly it leads, and no key."""
    told: dict[str, Any] = {
        "provider": held.provider,
        "registered": rfc3339(held.at),
        "expires": rfc3339(held.at + 1000 * REGISTERED_SECONDS),
    }
    if host := host_of(held):
        told["host"] = host
    return told


# --- what a push opens ---------------------------------------------------------------------------


class Capabilities:
    """Opens capabilities, each for a device that is still registered.

    Args:
        registrations: of all devices, and the key of capabilities.
        authenticator: knows which tokens were revoked.
        rates: how fast may be asked for one mailbox.
        redis_time: now by Redis time, in Unix seconds.
    """

    def __init__(
        self,
        registrations: PushRegistrations,
        authenticator: Authenticator,
        rates: RequestRates,
        redis_time: Callable[[], float],
    ) -> None:
        self._registrations = registrations
        self._authenticator = authenticator
        self._rates = rates
        self._redis_time = redis_time
        self._secret = b""
        self._read_at = 0.0

    async def open(self, headers: Mapping[str, str]) -> Capability:
        """What the capability in the headers of a request opens.

        Args:
            headers: asked with lower-case names.

        Raises:
            InvalidToken: there is none, or it is refused.
            RateLimited: it is asked for this mailbox too often.
            PushError: Redis cannot be reached.
        """
        text = bearer(headers) or ""
        check_form(text)
        opened = open_sealed(await self._key(), text, round(1000 * self._redis_time()))
        self._rates.spend(opened.mailbox, time.monotonic())
        held = (await self._registrations.of(opened.mailbox)).get(opened.device)
        if held is None or await self._authenticator.is_revoked(
            namespace_of(opened.mailbox), name_of(opened.mailbox), held.token_key, held.issued
        ):
            raise InvalidToken(
                "the device is registered for pushes no more, so the capability is void: ask with"
                " a token"
            )
        return opened

    async def _key(self) -> bytes:
        now = time.monotonic()
        if not self._secret or now - self._read_at >= SECRET_SECONDS:
            self._secret = await self._registrations.secret()
            self._read_at = now
        return self._secret


class CapabilityOperation(Operation):
    """Base of what takes a capability and nothing else.

    Args:
        capabilities: opens them.
        origins: which pages may ask.
    """

    def __init__(self, *, capabilities: Capabilities, origins: Origins) -> None:
        super().__init__(origins)
        self._capabilities = capabilities

    async def admit(self, request: Request) -> Admitted:
        """Refuse, by raising an error, what the headers alone condemn.

        Raises:
            PushError: they do.
        """
        self.check_method(request)
        if request.length:
            raise InvalidRequest(f"send {request.method} without a body: the capability says all")
        opened = await self._capabilities.open(request.headers)
        return Admitted(ANYONE, 0, opened)

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        """Do it to what was opened."""
        if admitted.opened is None:
            raise InvalidToken("send a capability")
        return await self.done(admitted.opened)

    async def done(self, opened: Capability) -> Answer:
        """Do what is asked for, with what a capability opens."""
        raise NotImplementedError


class PushedOperation(CapabilityOperation):
    """Tells the text of the notification of a push.

    Args:
        history: of the mailboxes.
        pushes: what was to be pushed.
        capabilities: opens them.
        origins: which pages may ask.
    """

    route: ClassVar[str] = "push_notification"
    allow: ClassVar[str] = "GET, OPTIONS"

    def __init__(
        self, *, history: History, pushes: Pushes, capabilities: Capabilities, origins: Origins
    ) -> None:
        super().__init__(capabilities=capabilities, origins=origins)
        self._history = history
        self._pushes = pushes

    async def done(self, opened: Capability) -> Answer:
        """Answer with it, as the mailbox has it now."""
        mailbox, entry_id = opened.mailbox, opened.notification
        page, record = await asyncio.gather(
            self._history.page(mailbox, entry_id + 1, 1, EVERYTHING),
            self._pushes.record(mailbox, entry_id),
        )
        found = [
            each
            for each in page.entries
            if each.id == entry_id and each.device in ("", opened.device)
        ]
        if not found or record is None:
            raise NotFound("the mailbox holds this notification no more: show a general text")
        return json_answer(
            200,
            {
                "id": ids.render(entry_id),
                "time": rfc3339(ids.milliseconds(entry_id)),
                **_text_of(record, page.unread),
                "read": found[0].state in (READ, ARCHIVED),
                "unread": page.unread,
            },
        )


def _text_of(record: PushRecord, unread: int) -> dict[str, Any]:
    """What a person is shown, by the names of a push's payload; what is empty is not there."""
    text = record.text
    told = {
        "title": text.title,
        "body": text.body,
        "url": text.url,
        "icon": text.icon,
        "tag": record.collapse_key,
        "group": record.event,
        "urgency": text.urgency,
    }
    badge = unread if text.badge == "unread" else text.badge
    return {
        **{name: value for name, value in told.items() if value},
        **({} if badge == "" else {"badge": badge}),
    }


class PushReadOperation(CapabilityOperation):
    """Marks the notification of a push as read.

    Args:
        read_states: of the mailboxes.
        capabilities: opens them.
        origins: which pages may ask.
    """

    route: ClassVar[str] = "push_read"
    allow: ClassVar[str] = "POST, OPTIONS"

    def __init__(
        self, *, read_states: ReadStates, capabilities: Capabilities, origins: Origins
    ) -> None:
        super().__init__(capabilities=capabilities, origins=origins)
        self._read_states = read_states

    async def done(self, opened: Capability) -> Answer:
        """Answer with how many are unread then."""
        change = Change(Verb.READ, [opened.notification])
        changed = await self._read_states.change(opened.mailbox, change)
        return json_answer(200, {"unread": changed.unread})
