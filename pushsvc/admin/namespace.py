"""In which namespace the console looks and acts: the token's own, or one that an operator names."""

import msgspec

from pushsvc.auth.tokens import Claims
from pushsvc.errors import Forbidden, InvalidName
from pushsvc.protocol.names import NAMESPACE_RULE, is_namespace
from pushsvc.web.base import Handler
from pushsvc.web.operation import Request, TokenOperation
from pushsvc.web.query import Query


class InNamespace(Handler):
    """Base of what concerns one namespace: with ``?namespace=`` an operator's token acts there."""

    async def authorized(self) -> Claims:
        """What the request's token says, in the namespace that is asked for.

        Raises:
            InvalidToken: there is no token, or it is refused.
            InvalidName: the namespace is none.
            Forbidden: the namespace is not the token's, which is no operator's.
        """
        claims = await super().authorized()
        return within(claims, Query(self.request.query).one("namespace"))


class OperationInNamespace(TokenOperation):
    """The same of operations."""

    async def authorized(self, request: Request) -> Claims:
        """See ``InNamespace.authorized``."""
        claims = await super().authorized(request)
        return within(claims, Query(request.query).one("namespace"))


def within(claims: Claims, namespace: str | None) -> Claims:
    """Claims in a namespace that a request names, empty for the default one; None for their own.

    Raises:
        InvalidName: the namespace is none.
        Forbidden: it is not the token's, which is no operator's.
    """
    if namespace is None or namespace == claims.namespace:
        return claims
    if namespace and not is_namespace(namespace):
        raise InvalidName(f"namespace must be a string of {NAMESPACE_RULE}, or empty")
    if not claims.operator:
        raise Forbidden(
            'this token sees its own namespace only: leave "namespace" out, or use a token of an '
            "issuer that is an operator"
        )
    return msgspec.structs.replace(claims, namespace=namespace)
