"""Tokens for development, as the node that has these settings accepts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pushsvc.auth.claims import Rules, stripped
from pushsvc.auth.issuer_table import MAX_FILE, AuthFileError, Entry, parse, wrong
from pushsvc.auth.tokens import HMAC_ALGORITHMS, mint
from pushsvc.server.verifier import rules_of
from pushsvc.settings import PREFIX, Settings
from pushsvc.settings.secret_files import SecretFileError, read_secret

_SECRETS = ("secret", "secrets", "secret_file")


class NoSecretError(Exception):
    """There is no such token, or no secret to sign it with; the message says what to change."""


def mint_for(
    settings: Settings,
    user: str,
    scopes: Sequence[str],
    ttl: float,
    topics: Mapping[str, Sequence[str]] | None = None,
    *,
    issuer: str | None = None,
) -> str:
    """Mint a token.

    Args:
        settings: of the node.
        user: whose token it is.
        scopes: to grant.
        ttl: seconds until it expires.
        topics: patterns to grant; None for no claim.
        issuer: the name of an entry in the file of issuers; None for the only one with a secret.

    Raises:
        NoSecretError: the settings have no secret, or not the one that is asked for; or the issuer
            cannot grant a scope.
        InvalidName: the user is not a valid name.
        InvalidToken: a pattern is not one, or there are too many.
    """
    if settings.auth_file is not None:
        rules, secret, algorithm = _entry_of(settings.auth_file, issuer)
    elif settings.jwt_secret is None:
        raise NoSecretError(
            f"{PREFIX}JWT_SECRET is not set: tokens can be minted with a shared secret only"
        )
    else:
        secret = settings.jwt_secret.get_secret_value()
        rules, algorithm = rules_of(settings), _algorithm(settings.jwt_algorithms)
    most = rules.max_scopes
    for scope in scopes:
        if most is not None and stripped(scope, rules.scope_prefix) not in most:
            raise NoSecretError(
                f"no token has {scope}: it is not among {rules.setting('max_scopes')}"
            )
    try:
        return mint(
            secret=secret,
            user=user,
            audience=next(iter(rules.audience), ""),
            scopes=scopes,
            topics=topics,
            ttl=ttl,
            issuer=rules.issuer,
            algorithm=algorithm,
            user_claim=rules.user_claim,
            audience_claim=rules.audience_claim,
            scope_claim=rules.scope_claims[0],
            topics_claim=rules.topics_claim,
            further={claim: allowed[0] for claim, allowed in rules.require},
        )
    except ValueError as error:
        raise NoSecretError(f"tokens cannot be minted: {error}") from None


def _algorithm(algorithms: Sequence[str]) -> str:
    return next((name for name in algorithms if name in HMAC_ALGORITHMS), "HS256")


def _entry_of(path: Path, name: str | None) -> tuple[Rules, str, str]:
    """An entry of the file that has a secret, the secret, and the algorithm to sign with."""
    try:
        with path.open("rb") as file:
            entries = {entry.rules.name: entry for entry in parse(file.read(MAX_FILE + 1))}
    except OSError as error:
        raise NoSecretError(f"'{path}' cannot be read: {error.strerror}") from None
    except AuthFileError as error:
        raise NoSecretError(f"'{path}': {error.message}") from None
    able = [each for each in entries.values() if each.source.kind in _SECRETS]
    chosen = [each for each in able if name in (None, each.rules.name)]
    if len(chosen) != 1:
        told = ", ".join(each.rules.name for each in able) or "none"
        raise NoSecretError(f"name with --issuer an issuer that has a secret in '{path}': {told}")
    (entry,) = chosen
    return entry.rules, _secret_of(path, entry), _algorithm(entry.source.algorithms)


def _secret_of(path: Path, entry: Entry) -> str:
    value = entry.source.values[0]
    if entry.source.kind != "secret_file":
        return value
    try:
        return read_secret(path.parent / value)
    except SecretFileError as error:
        # Without its name: that may be a secret, written into the wrong place.
        told = wrong(entry.rules.name, "secret_file[0]", str(error)).message
        raise NoSecretError(f"'{path}': {told}") from None
