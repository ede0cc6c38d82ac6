"""Settings that go together: each check is given a value and those before it in the table.

Of those, one that was refused is missing; it is told first, so nothing is said about it here.
"""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationInfo

from pushsvc.settings.names import PREFIX, variable


def with_bare_url(value: object, info: ValidationInfo) -> object:
    """A login to Redis goes with a URL that has none."""
    url = info.data.get("redis_url")
    if value is not None and url is not None and "@" in urlsplit(url.get_secret_value()).netloc:
        raise ValueError(
            f"is set and {PREFIX}REDIS_URL has a user or a password before its @:"
            " take those out of the URL"
        )
    return value


def with_redis_tls(file: Path | None, info: ValidationInfo) -> Path | None:
    """The files of TLS go with a Redis URL that asks for it."""
    url = info.data.get("redis_url")
    if file is not None and url is not None and not url.get_secret_value().startswith("rediss"):
        raise ValueError(
            f"is set and {PREFIX}REDIS_URL is without TLS: write rediss in place of redis there"
        )
    return file


def with_sentinel(value: object, info: ValidationInfo) -> object:
    """A login to Sentinel goes with a Redis URL that names one."""
    url = info.data.get("redis_url")
    if value is not None and url is not None and "+sentinel:" not in url.get_secret_value():
        raise ValueError(f"is set and {PREFIX}REDIS_URL names no Sentinel: take one of the two")
    return value


def with_password_file(user: str | None, info: ValidationInfo) -> str | None:
    """A user goes with the file of its password."""
    file = str(info.field_name).replace("username", "password_file")
    if user is not None and file in info.data and info.data[file] is None:
        raise ValueError(f"is set and {variable(file)} is empty: set both, or no user")
    return user


def with_certificate(key: Path | None, info: ValidationInfo) -> Path | None:
    """A private key goes with its certificate, and a certificate with its key."""
    _together(key, str(info.field_name).replace("key", "cert"), info)
    return key


def with_audience_claim(audience: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """To look at no audience takes more than an audience left empty."""
    if not audience and info.data.get("jwt_audience_claim", "none") != "none":
        raise ValueError(
            f"is empty: name an audience, or set {PREFIX}JWT_AUDIENCE_CLAIM to none so that any"
            " audience is accepted"
        )
    return audience


def with_webhook_url(secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """The secret of receipts goes with the URL that they are sent to, and the other way round."""
    _together(secret, "webhook_url", info)
    return secret


def with_vapid_key(subject: str | None, info: ValidationInfo) -> str | None:
    """Push services are told who sends, and each message is signed by that one."""
    _together(subject, "push_vapid_key_file", info)
    return subject


def with_apns_key(part: str | None, info: ValidationInfo) -> str | None:
    """The key of APNs goes with its id and the team that it is of."""
    _together(part, "push_apns_key_file", info)
    return part


def _together(value: object, field: str, info: ValidationInfo) -> None:
    """Two settings go together, or neither is set.

    Args:
        value: of the one that is checked.
        field: the other one, which comes before it.
        info: with the value of that.

    Raises:
        ValueError: one of them is set and the other is not.
    """
    if field in info.data and (info.data[field] is None) != (value is None):
        raise ValueError(
            f"is {'empty' if value is None else 'set'} and {variable(field)} is"
            f" {'set' if value is None else 'empty'}: set both or neither"
        )
