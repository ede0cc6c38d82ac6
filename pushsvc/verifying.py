"""The verifier of tokens that the settings ask for, with its way to the keys."""

from pathlib import Path

from tornado.httpclient import AsyncHTTPClient

from pushsvc.auth.keys import MAX_JWKS, KeyConfigError, verifier
from pushsvc.auth.tokens import Verifier
from pushsvc.settings import PREFIX, Settings, SettingsError


def verifier_of(settings: Settings) -> Verifier:
    """The verifier of tokens.

    Args:
        settings: of the process.

    Raises:
        SettingsError: the keys are missing, unreadable or unfit.
    """
    pem = None
    if settings.jwt_public_key_file is not None:
        try:
            pem = Path(settings.jwt_public_key_file).read_bytes()
        except OSError as error:
            raise SettingsError(
                PREFIX + "JWT_PUBLIC_KEY_FILE", f"cannot be read: {error.strerror}"
            ) from None
    secret = settings.jwt_secret
    try:
        return verifier(
            algorithms=settings.jwt_algorithms,
            secret=None if secret is None else secret.get_secret_value(),
            public_key_pem=pem,
            jwks_url=settings.jwt_jwks_url,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            fetch=_fetch,
        )
    except KeyConfigError as error:
        raise SettingsError(PREFIX + error.variable, error.message) from None


async def _fetch(url: str) -> bytes:
    """Get a JWKS document."""
    client = AsyncHTTPClient(force_instance=True, max_body_size=MAX_JWKS)
    try:
        answer = await client.fetch(
            url, connect_timeout=5, request_timeout=10, follow_redirects=False
        )
        return answer.body
    finally:
        client.close()
