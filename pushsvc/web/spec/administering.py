"""The operations that revoke tokens."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_ADMIN
from pushsvc.web.spec.operation import JSON, USER, WITH_BODY, WITH_TOKEN, Answer, Body, Operation
from pushsvc.web.spec.schemas import ref

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
