"""The operations that revoke tokens."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_ADMIN
from pushsvc.web.spec.operation import (
    JSON,
    USER,
    WITH_BODY,
    WITH_TOKEN,
    Answer,
    Body,
    Operation,
    query,
)
from pushsvc.web.spec.schemas import ref, text

_REVOCATION: Final = {"user": "u1", "issued_before": 1764000000, "expires_at": 1766592000}

ADMINISTERING: Final = (
    Operation(
        method="POST",
        path="/v1/users/{user}/disconnect",
        id="disconnect",
        tag="administer",
        summary="Revoke the tokens that a user has, and close its connections",
        description=(
            f"Needs the scope `{SCOPE_ADMIN}`. The connections of all nodes are closed with 4501 "
            "within a second. Tokens issued later are good. No body is needed."
        ),
        parameters=(USER,),
        bodies={JSON: Body(schema=ref("Disconnect"), examples={"ttl": {"ttl": 86400}})},
        body_required=False,
        answers=(
            Answer(
                status=201,
                meaning="What is revoked.",
                schema=ref("Revocation"),
                example=_REVOCATION,
            ),
        ),
        errors=(*WITH_TOKEN, *WITH_BODY, errors.InvalidName),
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{user}",
        id="erase",
        tag="administer",
        summary="Erase all that is kept of a user",
        description=(
            f"Needs the scope `{SCOPE_ADMIN}`. The mailbox goes in one step: what is published "
            "meanwhile is erased or kept whole. Connections are closed with 4001, and begin anew. "
            "Revocations stay, and tokens stay good. Repeating it does no harm."
        ),
        parameters=(USER,),
        answers=(
            Answer(
                status=200,
                meaning="It is erased.",
                schema=ref("Erased"),
                example={"user": "u1", "erased": 5, "left": False},
            ),
        ),
        errors=(*WITH_TOKEN, errors.InvalidName),
    ),
    Operation(
        method="GET",
        path="/v1/users/{user}/export",
        id="export",
        tag="administer",
        summary="All that is kept of a user, in parts",
        description=(
            f"Needs the scope `{SCOPE_ADMIN}`. The first part has the devices and connections, "
            "what is scheduled comes next, then the notifications."
        ),
        parameters=(USER, query("next", text("the `next` of the part before"))),
        answers=(
            Answer(
                status=200,
                meaning="A part; `next` is null in the last one.",
                schema=ref("Export"),
                example={
                    "user": "u1",
                    "devices": [
                        {
                            "device": "phone",
                            "acked": "1764000000123-0",
                            "began": None,
                            "broadcast": None,
                        }
                    ],
                    "connections": [],
                    "notifications": [],
                    "scheduled": [],
                    "next": None,
                },
            ),
        ),
        errors=(*WITH_TOKEN, errors.InvalidRequest, errors.InvalidName),
    ),
    Operation(
        method="POST",
        path="/v1/revocations",
        id="revoke",
        tag="administer",
        summary="Revoke tokens by user, by id or by time of issue",
        description=(
            f"Needs the scope `{SCOPE_ADMIN}`. Live connections that were made with such a token "
            "are closed with 4501 within a second, on every node."
        ),
        bodies={
            JSON: Body(
                schema=ref("Revoke"),
                examples={
                    "user": {"user": "u1"},
                    "token": {"jti": "5c1f", "ttl": 3600},
                    "everyone": {"issued_before": 1764000000},
                },
            )
        },
        answers=(
            Answer(
                status=201,
                meaning="What is revoked; an earlier revocation of the same is never weakened.",
                schema=ref("Revocation"),
                example=_REVOCATION,
            ),
        ),
        errors=(*WITH_TOKEN, *WITH_BODY, errors.InvalidName),
    ),
    Operation(
        method="GET",
        path="/v1/revocations",
        id="listRevocations",
        tag="administer",
        summary="The newest revocations",
        description=f"Needs the scope `{SCOPE_ADMIN}`. At most 1000, newest first.",
        answers=(
            Answer(
                status=200,
                meaning="The revocations that still hold.",
                schema=ref("RevocationList"),
                example={"revocations": [_REVOCATION]},
            ),
        ),
        errors=WITH_TOKEN,
    ),
)
