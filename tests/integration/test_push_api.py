"""Registering devices for pushes, and what a capability opens."""

import asyncio
import base64
import secrets
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pushsvc.protocol import feeds, ids
from pushsvc.protocol.push import MAX_DEVICES
from pushsvc.protocol.push_capability import seal
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.web.spec import openapi
from tests.support.backend import problem, publish
from tests.support.nodes import SECRET, Node, publisher_token, token, wait_until
from tests.support.phone import Phone

pytestmark = pytest.mark.promise

PAGE = "https://app.example.com"
PREFIX = "pushapi"
ADMIN = token("operator", "push.admin", ttl=86400)  # made when loaded, used much later
HOST = "updates.push.services.mozilla.com"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def point(key: ec.EllipticCurvePrivateKey) -> str:
    """A public key as browsers write it."""
    form = serialization.PublicFormat.UncompressedPoint
    return base64url(key.public_key().public_bytes(serialization.Encoding.X962, form))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


VAPID = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with Web Push."""
    directory = tmp_path_factory.mktemp("push")
    (directory / "vapid.pem").write_bytes(pem(VAPID))
    with Node(
        valkey.url, directory, prefix=PREFIX, allowed_origins=PAGE,
        push_vapid_key_file=directory / "vapid.pem", push_vapid_subject="mailto:ops@example.com",
        rate_messages_per_second=50, rate_burst=100,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def plain(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One without any provider, and with low rates, on the same Redis."""
    with Node(
        valkey.url, tmp_path_factory.mktemp("plain"), prefix=PREFIX,
        rate_messages_per_second=0.5, rate_burst=5,
    ) as running:  # fmt: skip
        yield running


def subscription(**changed: Any) -> dict[str, Any]:
    """What a browser gives, of a push service that it names, with keys of its own."""
    name = secrets.token_urlsafe(9)
    return {
        "endpoint": f"https://{HOST}/wpush/v2/{name}",
        "expirationTime": None,
        "keys": {
            "p256dh": point(ec.generate_private_key(ec.SECP256R1())),
            "auth": base64url(secrets.token_bytes(16)),
        },
        **changed,
    }


def web(**changed: Any) -> dict[str, Any]:
    return {"provider": "web", "subscription": subscription(), **changed}


async def ask(
    node: Node, method: str, path: str, auth: str | None = None, **kwargs: Any
) -> httpx.Response:
    """A request; with the backend's token where none is given, and without one where it is ''."""
    auth = publisher_token() if auth is None else auth
    headers = {"Authorization": f"Bearer {auth}"} if auth else {}
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as client:
        return await client.request(
            method, path, headers=headers | kwargs.pop("headers", {}), **kwargs
        )


def at(user: str, device: str = "phone") -> str:
    return f"/v1/users/{user}/devices/{device}/push"


async def register(node: Node, user: str, device: str = "phone", **kwargs: Any) -> dict[str, Any]:
    auth = kwargs.pop("auth", None) or token(user)
    answer = await ask(node, "PUT", at(user, device), auth, json=kwargs.pop("body", None) or web())
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def registered(node: Node, user: str, device: str = "phone") -> bool:
    answer = await ask(node, "GET", at(user, device))
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200


async def devices(node: Node, user: str) -> dict[str, Any]:
    answer = await ask(node, "GET", f"/v1/users/{user}/devices")
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"devices"}
    return {each["device"]: each for each in answer.json()["devices"]}


# --- by which ways -------------------------------------------------------------------------------


async def test_anybody_is_told_by_which_ways_devices_are_reached(node: Node, plain: Node) -> None:
    answer = await ask(node, "GET", "/v1/push", "")
    assert answer.status_code == 200
    assert answer.json() == {"providers": ["web"], "web": {"key": point(VAPID)}}
    assert (await ask(plain, "GET", "/v1/push", "")).json() == {"providers": []}
    problem(await ask(node, "GET", "/v1/push", "", content=b"x"), 400, "invalid")


# --- registering ---------------------------------------------------------------------------------


async def test_a_user_registers_a_device_renews_that_and_ends_it(node: Node, user: str) -> None:
    own, body = token(user), web(key=point(VAPID))
    problem(await ask(node, "GET", at(user), own), 404, "not_found")
    made = await ask(node, "PUT", at(user), own, json=body)
    assert made.status_code == 201, made.text
    told = made.json()
    assert told.keys() == {"device", "provider", "registered", "expires", "host"}
    assert (told["device"], told["provider"], told["host"]) == ("phone", "web", HOST)
    since = datetime.fromisoformat(told["registered"])
    assert datetime.fromisoformat(told["expires"]) - since == timedelta(days=270)
    assert abs(since.timestamp() - time.time()) < 60
    assert (await ask(node, "PUT", at(user), own, json=body)).status_code == 200
    shown = await ask(node, "GET", at(user), own)
    assert shown.status_code == 200
    assert shown.json().keys() == told.keys()
    for _ in range(2):
        ended = await ask(node, "DELETE", at(user), own)
        assert (ended.status_code, ended.content) == (204, b"")
    problem(await ask(node, "GET", at(user), own), 404, "not_found")


async def test_no_answer_tells_an_endpoint_or_a_key(node: Node, user: str) -> None:
    body = web()
    secret = body["subscription"]
    answers = [
        await ask(node, "PUT", at(user), json=body),
        await ask(node, "GET", at(user)),
        await ask(node, "GET", f"/v1/users/{user}/devices"),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201)
        for text in (secret["endpoint"].rpartition("/")[2], *secret["keys"].values()):
            assert text not in answer.text


async def test_user_and_device_may_be_named_in_the_query(node: Node) -> None:
    user, device = f"auth0|{secrets.token_hex(4)}/..", "iPhone von Björn/{1}"
    query = {"user": user, "device": device}
    own = token(user)
    path = "/v1/user/devices/push"
    assert (await ask(node, "PUT", path, own, params=query, json=web())).status_code == 201
    for answer in (
        await ask(node, "GET", path, own, params=query),
        await ask(node, "GET", path, own, params={"device": device}),
        await ask(
            node, "GET",
            f"/v1/users/auth0%7C{user[6:14]}%2F../devices/iPhone%20von%20Bj%C3%B6rn%2F%7B1%7D/push",
        ),
    ):  # fmt: skip
        assert answer.status_code == 200, answer.text
        assert answer.json()["device"] == device
    listed = await ask(node, "GET", "/v1/user/devices", own)
    assert [each["device"] for each in listed.json()["devices"]] == [device]
    found = problem(await ask(node, "GET", path, own), 400, "invalid")
    assert '"device" is missing' in found["detail"]
    problem(await ask(node, "GET", path, params={"device": device}), 400, "invalid")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_the_user_and_backends_may_ask(node: Node, user: str, method: str) -> None:
    for auth in (None, ADMIN, token(user)):
        answer = await ask(node, method, at(user), auth, json=web())
        assert answer.status_code in (200, 201, 204, 404)
    path = at(user)
    problem(await ask(node, method, path, token(f"{user}x"), json=web()), 403, "forbidden")
    problem(await ask(node, method, path, "", json=web()), 401, "invalid_token")
    problem(await ask(node, method, path, "nonsense", json=web()), 401, "invalid_token")
    problem(
        await ask(node, "GET", f"/v1/users/{user}/devices", token(f"{user}x")), 403, "forbidden"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"provider": "apns", "token": "00" * 32, "topic": "com.example.app"}, '"provider" is web'),
        ({"provider": "web"}, "subscription"),
        (web(subscription=subscription(endpoint="https://push.example.com/x")), "not among"),
        (web(subscription=subscription(endpoint=f"http://{HOST}/x")), "https"),
        (web(subscription=subscription(endpoint=f"https://{HOST}:8443/x")), "443"),
        (web(subscription=subscription(endpoint="https://127.0.0.1/x")), "IP address"),
        (web(subscription=subscription(endpoint=f"https://{HOST}/" + "x" * 2048)), "1 to 2048"),
        (web(subscription=subscription(keys={"p256dh": "BAAA", "auth": "A" * 22})), "p256dh"),
        (web(subscription={**subscription(), "keys": {}}), "p256dh"),
        (web(key=point(ec.generate_private_key(ec.SECP256R1()))), "does not have"),
    ],
)  # fmt: skip
async def test_what_nothing_can_be_sent_to_is_refused(
    node: Node, user: str, body: Any, said: str
) -> None:
    answer = await ask(node, "PUT", at(user), token(user), json=body)
    assert said in problem(answer, 400, "invalid")["detail"]
    assert not await registered(node, user)


async def test_a_body_is_bounded_and_json(node: Node, user: str) -> None:
    own = token(user)
    large = web(more="x" * 9000)
    problem(await ask(node, "PUT", at(user), own, json=large), 413, "too_large")
    text = {"Content-Type": "text/plain"}
    answer = await ask(node, "PUT", at(user), own, content=b"{}", headers=text)
    problem(answer, 415, "unsupported_media_type")
    json = {"Content-Type": "application/json"}
    answer = await ask(node, "PUT", at(user), own, content=b"{", headers=json)
    problem(answer, 400, "invalid_json")
    problem(await ask(node, "PUT", at(user), own), 415, "unsupported_media_type")
    assert not await registered(node, user)


async def test_without_a_provider_it_is_said_what_to_set(plain: Node, user: str) -> None:
    answer = await ask(plain, "PUT", at(user), token(user), json=web())
    assert "PUSHSVC_PUSH_VAPID_KEY_FILE" in problem(answer, 400, "invalid")["detail"]
    problem(await ask(plain, "GET", at(user), token(user)), 404, "not_found")
    assert (await ask(plain, "DELETE", at(user), token(user))).status_code == 204
    assert await devices(plain, user) == {}


async def test_a_user_has_so_many_registered_devices_and_no_more(node: Node, user: str) -> None:
    for number in range(MAX_DEVICES):
        await register(node, user, f"d{number}", auth=publisher_token())
    answer = await ask(node, "PUT", at(user, "one-more"), json=web())
    problem(answer, 409, "too_many_devices")
    await register(node, user, "d0", auth=publisher_token())
    assert (await ask(node, "DELETE", at(user, "d0"))).status_code == 204
    await register(node, user, "one-more", auth=publisher_token())


async def test_a_phone_that_is_handed_on_is_the_new_users(node: Node, user: str) -> None:
    body = web()
    await register(node, user, body=body)
    await register(node, f"{user}-new", body=body)
    assert await registered(node, f"{user}-new")
    assert not await registered(node, user)


async def test_a_user_asks_at_the_usual_rate(plain: Node, user: str) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(base_url=plain.url, timeout=20) as client:
        answers = await asyncio.gather(
            *(client.delete(at(user), headers=headers) for _ in range(30))
        )
    assert {answer.status_code for answer in answers} == {204, 429}
    problem(next(each for each in answers if each.status_code == 429), 429, "rate_limited")


# --- who there is --------------------------------------------------------------------------------


async def test_the_devices_of_a_user_are_listed_connected_registered_or_neither(
    node: Node, user: str
) -> None:
    assert await devices(node, user) == {}
    sent = await publish(node, user, 1)
    async with Phone(node, user, "desk") as desk:
        (note,) = await desk.notifications(1)
        await desk.ack(note["id"])
        await register(node, user, "phone")
        await asyncio.to_thread(
            wait_until,
            lambda: asyncio.run(devices(node, user))["desk"]["acked"] == sent,
            "the acknowledgement",
        )
        found = await devices(node, user)
        assert list(found) == ["desk", "phone"]
        assert found["desk"] == {
            "device": "desk", "acked": sent, "connections": 1, "push": None,
        }  # fmt: skip
        phone = found["phone"]
        assert (phone["acked"], phone["connections"]) == (None, 0)
        assert phone["push"].keys() == {"provider", "registered", "expires", "host"}


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/push", {"GET"}),
        (at("u1"), {"GET", "PUT", "DELETE"}),
        ("/v1/user/devices/push", {"GET", "PUT", "DELETE"}),
        ("/v1/users/u1/devices", {"GET"}),
        ("/v1/push/notification", {"GET"}),
        ("/v1/push/read", {"POST"}),
    ],
)
async def test_pages_that_may_call_are_told_so(node: Node, path: str, methods: set[str]) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": next(iter(methods)),
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = await ask(node, "OPTIONS", path, "", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    allowed = set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert allowed == methods | {"OPTIONS"}
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
    for method in methods:
        answer = await ask(node, method, path, "", headers={"Origin": "https://evil.example"})
        problem(answer, 403, "origin_refused")
        assert "Access-Control-Allow-Origin" not in answer.headers


# --- revocation ----------------------------------------------------------------------------------


async def revoke(node: Node, path: str = "/v1/revocations", **body: Any) -> None:
    answer = await ask(node, "POST", path, ADMIN, json=body)
    assert answer.status_code == 201, answer.text


async def test_what_revokes_a_token_ends_what_it_registered_at_once(node: Node, user: str) -> None:
    auth = token(user)
    token_id = jwt.decode(auth, SECRET, ["HS256"], audience="pushsvc")["jti"]
    await register(node, user, "by-one", auth=auth)
    await register(node, user, "by-another")
    await revoke(node, jti=token_id)
    assert not await registered(node, user, "by-one")
    assert await registered(node, user, "by-another")


@pytest.mark.parametrize("by", ["revoke", "disconnect", "console"])
async def test_a_user_whose_tokens_are_revoked_is_reached_no_more(
    node: Node, user: str, by: str
) -> None:
    await register(node, user)
    await register(node, f"{user}-other")
    if by == "revoke":
        await revoke(node, user=user)
    elif by == "disconnect":
        answer = await ask(node, "POST", f"/v1/users/{user}/disconnect", ADMIN)
        assert answer.status_code == 201
    else:
        async with httpx.AsyncClient(base_url=node.admin_url, timeout=20) as console:
            answer = await console.post(
                "/console/api/user/disconnect", params={"user": user},
                headers={"Authorization": f"Bearer {ADMIN}"},
            )  # fmt: skip
        assert answer.status_code == 201, answer.text
    assert not await registered(node, user)
    assert await registered(node, f"{user}-other")


async def test_what_a_later_token_registered_stays(node: Node, user: str) -> None:
    await register(node, user)
    await revoke(node, user=user, issued_before=int(time.time()) - 60)
    assert await registered(node, user)


# --- what a push opens ---------------------------------------------------------------------------


TEXT = {
    "after": 3600,
    "title": "Your order",
    "body": "It is on its way.",
    "url": "/orders/17",
    "icon": "/parcel.png",
    "badge": "unread",
    "urgency": "high",
}


@pytest.fixture(scope="module")
def secret(node: Node, valkey: EmbeddedServer) -> bytes:
    """The key of capabilities; it is there once somebody needed it."""
    asyncio.run(ask(node, "GET", "/v1/push/notification", "pc1." + "A" * 100))
    with redis.Redis.from_url(valkey.url) as client:
        return bytes.fromhex(client.get(f"{PREFIX}:push:secret").decode())


def sealed(secret: bytes, user: str, notification: str, device: str = "phone", **other: Any) -> str:
    expires = other.get("expires", round(1000 * time.time()) + 600_000)
    mailbox = feeds.mailbox(user, other.get("namespace", ""))
    return seal(secret, mailbox, ids.parse(notification), device, expires)


async def test_a_capability_reads_one_notification_and_marks_it_as_read(
    node: Node, user: str, secret: bytes
) -> None:
    await register(node, user)
    sent = await publish(
        node, user, {"n": 1}, event="order.shipped", collapse_key="order-17", push=TEXT
    )
    await publish(node, user, {"n": 2})
    opens = sealed(secret, user, sent)
    answer = await ask(node, "GET", "/v1/push/notification", opens)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found.pop("time").endswith("Z")
    assert found == {
        "id": sent, "title": "Your order", "body": "It is on its way.", "url": "/orders/17",
        "icon": "/parcel.png", "tag": "order-17", "group": "order.shipped", "urgency": "high",
        "badge": 2, "read": False, "unread": 2,
    }  # fmt: skip
    async with Phone(node, user, "desk") as desk:
        await desk.notifications(2)
        answer = await ask(node, "POST", "/v1/push/read", opens)
        assert (answer.status_code, answer.json()) == (200, {"unread": 1})
        assert (await desk.receive())["ids"] == [sent]
    found = (await ask(node, "GET", "/v1/push/notification", opens)).json()
    assert (found["read"], found["unread"], found["badge"]) == (True, 1, 1)


async def test_what_left_the_mailbox_is_read_no_more(node: Node, user: str, secret: bytes) -> None:
    await register(node, user)
    sent = await publish(node, user, 1, push=TEXT)
    opens = sealed(secret, user, sent)
    assert (await ask(node, "GET", "/v1/push/notification", opens)).status_code == 200
    recalled = await ask(node, "DELETE", f"/v1/users/{user}/notifications/{sent}")
    assert recalled.status_code == 200
    problem(await ask(node, "GET", "/v1/push/notification", opens), 404, "not_found")
    assert (await ask(node, "POST", "/v1/push/read", opens)).json() == {"unread": 0}
    for other in ("1764000000123-0", "0-0"):
        opens = sealed(secret, user, other)
        problem(await ask(node, "GET", "/v1/push/notification", opens), 404, "not_found")


async def test_one_for_another_device_is_not_read(node: Node, user: str, secret: bytes) -> None:
    await register(node, user, "phone")
    await register(node, user, "desk")
    sent = await publish(node, user, 1, to={"user": user, "device": "desk"}, push=TEXT)
    opens = sealed(secret, user, sent, "phone")
    problem(await ask(node, "GET", "/v1/push/notification", opens), 404, "not_found")
    opens = sealed(secret, user, sent, "desk")
    assert (await ask(node, "GET", "/v1/push/notification", opens)).status_code == 200


async def test_one_published_without_a_push_is_not_read(
    node: Node, user: str, secret: bytes
) -> None:
    await register(node, user)
    opens = sealed(secret, user, await publish(node, user, "private"))
    problem(await ask(node, "GET", "/v1/push/notification", opens), 404, "not_found")


async def refused(node: Node, text: str) -> None:
    for method, path in (("GET", "/v1/push/notification"), ("POST", "/v1/push/read")):
        problem(await ask(node, method, path, text), 401, "invalid_token")


async def test_an_altered_an_expired_and_a_made_up_capability_open_nothing(
    node: Node, user: str, secret: bytes
) -> None:
    await register(node, user)
    sent = await publish(node, user, 1, push=TEXT)
    opens = sealed(secret, user, sent)
    assert (await ask(node, "GET", "/v1/push/notification", opens)).status_code == 200
    middle = len(opens) // 2
    await refused(
        node, opens[:middle] + ("A" if opens[middle] != "A" else "B") + opens[middle + 1 :]
    )
    await refused(node, opens[:-1])
    await refused(node, opens + "A" * 5000)
    await refused(node, sealed(secrets.token_bytes(32), user, sent))
    await refused(node, sealed(secret, user, sent, expires=round(1000 * time.time()) - 1000))
    await refused(node, "pc1.")
    await refused(node, "")
    for auth in (token(user), publisher_token(), ADMIN):
        await refused(node, auth)


async def test_a_capability_is_void_once_its_device_is_registered_no_more(
    node: Node, user: str, secret: bytes
) -> None:
    sent = await publish(node, user, 1, push=TEXT)
    opens = sealed(secret, user, sent)
    await refused(node, opens)
    await register(node, user)
    assert (await ask(node, "POST", "/v1/push/read", opens)).status_code == 200
    await ask(node, "DELETE", at(user))
    await refused(node, opens)
    await register(node, user)
    await revoke(node, user=user)
    await refused(node, opens)


async def test_a_capability_opens_nothing_else(node: Node, user: str, secret: bytes) -> None:
    await register(node, user)
    sent = await publish(node, user, 1, push=TEXT)
    opens = sealed(secret, user, sent)
    document = openapi.document()
    tried = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["security"] == [{"capability": []}] or not operation["security"]:
                continue
            filled = (
                path.replace("{user}", user).replace("{device}", "phone").replace("{topic}", "t")
            )
            filled = filled.replace("{id}", sent)
            query = {"user": user, "device": "phone", "topic": "t"} if "{" not in path else {}
            headers = {"Authorization": f"Bearer {opens}"}
            if path == "/v1/ws":
                headers |= {
                    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                }  # fmt: skip
            kwargs: dict[str, Any] = {"json": {}} if method in ("post", "put") else {}
            async with httpx.AsyncClient(base_url=node.url, timeout=20) as client:
                answer = await client.request(
                    method.upper(), filled, params=query, headers=headers, **kwargs
                )
            assert answer.status_code == 401, (method, path, answer.text)
            tried += 1
    assert tried > 30
    async with httpx.AsyncClient(base_url=node.admin_url, timeout=20) as console:
        headers = {"Authorization": f"Bearer {opens}"}
        answer = await console.get("/console/api/me", headers=headers)
    problem(answer, 401, "invalid_token")
    assert (await devices(node, user)).keys() == {"phone"}


async def test_capabilities_of_a_mailbox_are_used_at_the_usual_rate(
    node: Node, plain: Node, user: str, secret: bytes
) -> None:
    await register(node, user)
    await register(node, f"{user}-other")
    sent = await publish(node, user, 1, push=TEXT)
    headers = {"Authorization": f"Bearer {sealed(secret, user, sent)}"}
    async with httpx.AsyncClient(base_url=plain.url, timeout=20) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/push/read", headers=headers) for _ in range(30))
        )
    assert {each.status_code for each in answers} == {200, 429}
    opens = sealed(secret, f"{user}-other", sent)
    assert (await ask(plain, "POST", "/v1/push/read", opens)).status_code == 200
    assert (await ask(plain, "GET", at(user), token(user))).status_code == 200


async def test_a_body_is_not_waited_for(node: Node, user: str, secret: bytes) -> None:
    opens = sealed(secret, user, "1764000000123-0")
    answer = await ask(node, "POST", "/v1/push/read", opens, json={"ids": []})
    assert "without a body" in problem(answer, 400, "invalid")["detail"]
