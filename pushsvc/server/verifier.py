"""The verifier of tokens that the settings ask for, with its way to the keys."""

from pathlib import Path

from pushsvc.auth.claims import NO_AUDIENCE, Reader, Rules
from pushsvc.auth.issuer_table import AuthFileError
from pushsvc.auth.jwks import discovered, is_address, jwks_at
from pushsvc.auth.keys import MAX_PEM, KeyConfigError, public_keys, secret_keys
from pushsvc.auth.tokens import KeySource, Verifier
from pushsvc.server.auth_file import AuthFile
from pushsvc.server.fetch import Fetcher, FetchError
from pushsvc.settings import PREFIX, Settings, SettingsError


def verifier_of(settings: Settings) -> Verifier | AuthFile:
    """The verifier of tokens: of one issuer, or of those in a file.

    Args:
        settings: of the process.

    Raises:
        SettingsError: the keys, or the file of issuers, are missing, unreadable or unfit.
    """
    if settings.auth_file is not None:
        try:
            return AuthFile(settings.auth_file, _fetcher(settings).get)
        except AuthFileError as error:
            message = f"'{settings.auth_file}': {error.message}"
            raise SettingsError(PREFIX + "AUTH_FILE", message) from None
    sources = {
        "JWT_SECRET": settings.jwt_secret,
        "JWT_PUBLIC_KEY_FILE": settings.jwt_public_key_file,
        "JWT_JWKS_URL": settings.jwt_jwks_url,
    }
    given = [variable for variable, value in sources.items() if value is not None]
    rule = (
        f"set exactly one of {PREFIX}JWT_SECRET (or JWT_SECRET_FILE), JWT_PUBLIC_KEY_FILE and"
        " JWT_JWKS_URL, or none and JWT_ISSUER to the address of an issuer with discovery"
    )
    if len(given) > 1:
        raise SettingsError(PREFIX + given[0], f"{rule}; {' and '.join(given)} are set")
    issuer = settings.jwt_issuer
    if not given and (issuer is None or not is_address(issuer)):
        raise SettingsError(PREFIX + "JWT_SECRET", f"{rule}; none is set")
    source = given[0] if given else "JWT_ISSUER"
    try:
        keys = _keys(settings)
    except KeyConfigError as error:
        variable = source if error.part == "keys" else "JWT_ALGORITHMS"
        raise SettingsError(PREFIX + variable, error.message) from None
    return Verifier(keys, algorithms=keys.algorithms, reader=Reader(rules_of(settings)))


def rules_of(settings: Settings) -> Rules:
    """What the tokens of the one issuer that the settings name are read by."""
    claim = settings.jwt_audience_claim
    return Rules(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        audience_claim=None if claim == NO_AUDIENCE else claim,
        user_claim=settings.jwt_user_claim,
        scope_claims=settings.jwt_scope_claims,
        scope_prefix=settings.jwt_scope_prefix,
        topics_claim=settings.jwt_topics_claim,
    )


def _keys(settings: Settings) -> KeySource:
    """Where the keys are.

    Raises:
        KeyConfigError: they cannot be used.
        SettingsError: a file cannot be read.
    """
    algorithms = settings.jwt_algorithms
    if settings.jwt_secret is not None:
        return secret_keys([settings.jwt_secret.get_secret_value()], algorithms)
    if settings.jwt_public_key_file is not None:
        return public_keys(_read(settings.jwt_public_key_file), algorithms)
    fetcher = _fetcher(settings)
    if settings.jwt_jwks_url is not None:
        return jwks_at(settings.jwt_jwks_url, fetcher.get, algorithms)
    return discovered(str(settings.jwt_issuer), fetcher.get, algorithms)


def _fetcher(settings: Settings) -> Fetcher:
    """What gets the documents of issuers.

    Raises:
        SettingsError: the authorities cannot be used.
    """
    try:
        return Fetcher(settings.jwt_ca_file)
    except FetchError as error:
        raise SettingsError(PREFIX + "JWT_CA_FILE", str(error)) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM + 1)
    except OSError as error:
        raise SettingsError(
            PREFIX + "JWT_PUBLIC_KEY_FILE", f"cannot be read: {error.strerror}"
        ) from None
