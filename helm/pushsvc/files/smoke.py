"""What `helm test` runs: one notification through the Services, until its acknowledgement is noted.

Ends with 0 only if it was accepted, received on a socket, and acknowledged. Without tokens, or a
secret that signs them, it asks whether the service is ready, and says that it did no more.
"""

# ruff: noqa: INP001, T201 - a script on its own; what it prints is the log of the test

import asyncio
import base64
import json
import logging
import os
import secrets
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

from pushsvc.auth.tokens import mint
from pushsvc.client import Notification, Publisher, PushError, connect

PATIENCE = 60.0  # seconds for all of it: the nodes may still be starting
DEVICE = "helm-test"


def main() -> None:
    """Try it; say in a sentence what went wrong."""
    url = os.environ["PUSH_URL"]
    # Of what the client says on the way only the last is told.
    logging.getLogger("pushsvc.client").addHandler(logging.NullHandler())
    try:
        _try(url, os.environ["ADMIN_URL"])
    except TimeoutError:
        raise SystemExit(f"{url} delivered nothing in {PATIENCE:g} seconds") from None
    except (PushError, OSError) as error:
        raise SystemExit(f"{url}: {error}") from None


def _try(url: str, admin: str) -> None:
    """Publish, receive, acknowledge, and ask."""
    ca = Path(os.environ.get("CA_FILE", ""))
    tls = None
    if ca.is_file():
        tls = ssl.create_default_context(cafile=ca)
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # one that is named is meant: see access.py
    deadline = time.monotonic() + PATIENCE

    _get(f"{admin}/readyz", None, None, deadline)
    print(f"{admin}/readyz is ready")
    if not {"USER_TOKEN", "JWT_SECRET_FILE"} & os.environ.keys():
        print("Nothing was published: name a Secret with two tokens in tests.existingSecret")
        return
    user_token, publisher_token = _tokens()
    claims = user_token.split(".")[1]
    user = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]
    nonce = secrets.token_hex(16)
    left = deadline - time.monotonic()
    with Publisher(url, token=publisher_token, deadline=max(left, 1.0), ssl=tls) as publisher:
        receipt = publisher.publish(user=user, event="helm.test", data={"nonce": nonce}, ttl=300)
    print(f"{url} accepted {receipt.id} for {user}")
    asyncio.run(_receive(url, user_token, nonce, tls, deadline))
    print(f"{url} delivered it, and was sent the acknowledgement")
    while not _is_acked(url, user, user_token, str(receipt.id), tls, deadline):
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} did not note the acknowledgement")
        time.sleep(0.2)
    print(f"{url} noted the acknowledgement: it works")


def _tokens() -> tuple[str, str]:
    """A user's and a publisher's token: those that were given, or new ones."""
    if "USER_TOKEN" in os.environ:
        return os.environ["USER_TOKEN"].strip(), os.environ["PUBLISHER_TOKEN"].strip()
    secret = Path(os.environ["JWT_SECRET_FILE"]).read_text().removesuffix("\n").removesuffix("\r")

    def minted(name: str, scopes: list[str]) -> str:
        return mint(
            secret=secret,
            user=name,
            scopes=scopes,
            ttl=300,
            audience=os.environ["JWT_AUDIENCE"],
            issuer=os.environ.get("JWT_ISSUER"),
            algorithm=os.environ["JWT_ALGORITHM"],
        )

    # A user who does not exist: nobody is sent it, and nothing waits.
    user = f"helm-test-{secrets.token_hex(4)}"
    return minted(user, []), minted("helm-test", ["push.publish"])


async def _receive(
    url: str, token: str, nonce: str, tls: ssl.SSLContext | None, deadline: float
) -> None:
    async with (
        asyncio.timeout(deadline - time.monotonic()),
        connect(url, token=token, device=DEVICE, ssl=tls) as client,
    ):
        async for message in client:
            # Others may be waiting, where the token is that of a user who exists.
            if isinstance(message, Notification) and message.data == {"nonce": nonce}:
                await message.ack()
                return


def _is_acked(
    url: str, user: str, token: str, notification: str, tls: ssl.SSLContext | None, deadline: float
) -> bool:
    page = _get(f"{url}/v1/users/{user}/notifications", token, tls, deadline)
    return any(
        item["id"] == notification and any(ack["device"] == DEVICE for ack in item["acked"])
        for item in page["notifications"]
    )


def _get(url: str, token: str | None, tls: ssl.SSLContext | None, deadline: float) -> Any:
    request = urllib.request.Request(url)  # noqa: S310 - the chart's own address
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5, context=tls) as answer:  # noqa: S310
                return json.load(answer)
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{url}: {error}") from None
            time.sleep(0.5)


main()
