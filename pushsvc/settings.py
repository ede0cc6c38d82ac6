"""Every setting, once: the code, the command-line flags, the documentation and the tests read this.

A setting is the environment variable ``PUSHSVC_<NAME>``; a command-line flag overrides it. Nothing
is read implicitly: neither ``os.environ`` nor a ``.env`` file, only the mapping that :func:`load`
is given. ``python -m pushsvc.settings > docs/settings.md`` writes the documentation.
"""

import base64
import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Secret,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pushsvc.secretfiles import SecretFileError, read_secret

PREFIX = "PUSHSVC_"

# HMAC with SHA-256 needs a key of at least the hash's size (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32

# Every user of a machine can read the arguments of its processes, so these have no flag.
_SECRETS = ("jwt_secret", "webhook_secret")

# Longer values are cut in error messages: a line in a log, not the whole pasted file.
_SHOWN = 80


class SettingsError(Exception):
    """A setting cannot be used.

    Args:
        variable: the environment variable or the command-line flag that is wrong.
        message: what is wrong with it, and what to write instead; one line, without secrets.
    """

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable}: {message}")
        self.variable = variable
        self.message = message


class Durability(StrEnum):
    """What must have happened to a notification before its publisher is told that it is stored."""

    MEMORY = "memory"
    REPLICA = "replica"
    FSYNC = "fsync"


class RedisURL(Secret[str]):
    """A Redis URL; ``str`` and ``repr`` mask its passwords, ``get_secret_value()`` does not."""

    def _display(self) -> str:
        # "user:password@" keeps the user; what stands there without a colon may be a misplaced
        # password, so all of it goes.
        return re.sub(
            r"^([a-z+]+://)(?:([^:@/?#]*:)[^@/?#]*|[^@/?#]*)@", r"\1\2***@", self.get_secret_value()
        )


_SERVER = r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/?#@,\[\]]+)"
_REDIS_URL = re.compile(
    rf"""
      rediss?://           (?:[^\s/?#@]*@)? (?P<server>{_SERVER}(?::[0-9]+)?) (?:/[0-9]{{0,5}})?
    | unix://              (?:[^\s/?#@]*@)? /[^\s?#]+ (?:\?db=[0-9]{{1,5}})?
    | rediss?\+sentinel:// (?:[^\s/?#@]*@)? (?P<sentinels>{_SERVER}:[0-9]+(?:,{_SERVER}:[0-9]+)*)
                           /[^\s/?#]+
    | rediss?\+cluster://  (?:[^\s/?#@]*@)? (?P<nodes>{_SERVER}:[0-9]+(?:,{_SERVER}:[0-9]+)*)
                           (?:/0?)?
    """,
    re.VERBOSE,
)


def _check_redis_url(url: RedisURL) -> RedisURL:
    text = url.get_secret_value()
    match = _REDIS_URL.fullmatch(text)
    if match is None and "?" in text and not text.startswith("unix:"):
        raise ValueError(
            "has options behind a question mark: these are settings of their own,"
            f" {PREFIX}REDIS_CA_FILE and the like"
        )
    if match is None or not text.isprintable() or " " in text:
        raise ValueError(
            "is not one of redis://[user:password@]host[:port][/database], unix:///path[?db=number],"
            " redis+sentinel://host:port[,host:port]/name, redis+cluster://host:port[,host:port];"
            " TLS: rediss://, rediss+sentinel://, rediss+cluster://;"
            " percent-encode special characters in a password"
        )
    for server in next(filter(None, match.groups()), "").split(","):
        _, _, port = server.rpartition("]")[2].partition(":")
        if port and not 1 <= int(port) <= 65535:
            raise ValueError("has a port outside 1 to 65535")
    return url


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}|\*))?")


def _check_origin(origin: str) -> str:
    if origin == "*":
        return origin
    # Browsers send scheme and host in lower case and leave out the scheme's own port (RFC 6454,
    # section 6.2); written the same way here, comparing origins is comparing strings.
    match = _ORIGIN.fullmatch(origin.lower())
    if match is not None and match[3] == "*":
        return match[0]
    if match is None or not 0 < int(match[3] or "1") <= 65535:
        raise ValueError("is not an origin: write scheme://host[:port] without a path, or *")
    scheme, host, port = match.groups()
    if port is None or {"http": 80, "https": 443}.get(scheme) == int(port):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    # urlsplit drops line ends, and the HTTP client knows no user:password@
    if not good or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("is not an http:// or https:// URL without user and password")
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"is shorter than {MIN_SECRET_BYTES} bytes")
    return secret


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    # Read again by pushsvc.protocol.webhooks; the settings import nothing of ours.
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("is not whsec_ and the base64 of 24 to 64 random bytes")
    return secret


def _check_prefix(prefix: str) -> str:
    # Braces would mark a hash tag (Redis Cluster) and move every key to another slot.
    if re.fullmatch(r"[A-Za-z0-9._:-]{1,32}", prefix) is None:
        raise ValueError("is not 1 to 32 of the characters A-Z a-z 0-9 . _ : -")
    return prefix


def _check_text(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("contains a control character, or white space around it")
    return text


def _split(value: object) -> object:
    """Items separated by commas; white space around an item and empty items do not count."""
    if isinstance(value, str):
        return tuple(item for part in value.split(",") if (item := part.strip()))
    return value


Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip

_Text = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_text)]
_Port = Annotated[int, Field(ge=0, le=65535)]
_Seconds = Annotated[float, Field(ge=0.1, le=3600)]
_Origin = Annotated[str, AfterValidator(_check_origin)]


class Settings(BaseSettings):
    """The settings of one node, checked and frozen.

    The constructor reads the environment no more than :func:`load` does; it takes values by field
    name and raises pydantic's ``ValidationError``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        enable_decoding=False,  # lists are comma-separated, not JSON
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # the input may be a secret
        validate_default=True,
    )

    host: _Text = Field(default="0.0.0.0", description="Address that clients connect to.")
    port: _Port = Field(
        default=8080, description="TCP port that clients connect to; 0 takes any free port."
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the certificate, and behind it those between it and the authority, for"
            " TLS on that port, which then serves nothing else; read again when it changes."
        ),
    )
    tls_key_file: Path | None = Field(
        default=None, description="PEM file with that certificate's private key, not encrypted."
    )
    admin_host: _Text = Field(
        default="0.0.0.0", description="Address of the health checks and the metrics."
    )
    admin_port: _Port = Field(
        default=9090,
        description="TCP port of the health checks and the metrics; 0 takes any free port.",
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Processes that serve clients, on the same port."
    )
    redis_url: Annotated[RedisURL, AfterValidator(_check_redis_url)] = Field(
        default=RedisURL("redis://127.0.0.1:6379/0"),
        description=(
            "Redis or Valkey server: `redis://host:port/database`, `unix:///path`,"
            " `redis+sentinel://host:port,host:port/name` or"
            " `redis+cluster://host:port,host:port`; `rediss` in place of `redis` is TLS."
        ),
    )
    redis_password_file: Path | None = Field(
        default=None,
        description=(
            "File with the password for Redis, in place of one in the URL;"
            " read again for each new connection."
        ),
    )
    redis_username: _Text | None = Field(
        default=None,
        description="User (ACL) of that password; empty means Redis' user `default`.",
    )
    redis_ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the authorities that may certify Redis and Sentinel;"
            " empty means those of the system."
        ),
    )
    redis_cert_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate that this node shows to Redis and Sentinel.",
    )
    redis_key_file: Path | None = Field(
        default=None, description="PEM file with that certificate's private key, not encrypted."
    )
    redis_sentinel_password_file: Path | None = Field(
        default=None,
        description=(
            "File with the password for the Sentinel processes themselves;"
            " empty means that they ask for none."
        ),
    )
    redis_sentinel_username: _Text | None = Field(
        default=None,
        description="User (ACL) of that password; empty means Sentinel's user `default`.",
    )
    redis_prefix: Annotated[str, AfterValidator(_check_prefix)] = Field(
        default="push",
        description=(
            "Start of every key that is written, 1 to 32 of the characters `A-Za-z0-9._:-`;"
            " services with different prefixes can share a server."
        ),
    )
    durability: Durability = Field(
        default=Durability.MEMORY,
        description=(
            "What a publish waits for: the primary's `memory`, a `replica`'s memory,"
            " or the primary's `fsync` to disk."
        ),
    )
    durability_timeout_seconds: _Seconds = Field(
        default=2, description="Seconds a publish waits for that durability before it fails."
    )
    jwt_algorithms: Annotated[tuple[Algorithm, ...], BeforeValidator(_split)] = Field(
        default=(),
        description=(
            "Comma-separated signature algorithms that tokens may use;"
            " empty means those that fit the configured key."
        ),
    )
    jwt_secret: Annotated[SecretStr, AfterValidator(_check_secret)] | None = Field(
        default=None,
        description=(
            "Shared secret that signs tokens (HS256 and the like),"
            f" at least {MIN_SECRET_BYTES} bytes."
        ),
    )
    jwt_secret_file: Path | None = Field(
        default=None,
        description="File with that secret, in place of the variable; read at the start.",
    )
    jwt_public_key_file: Path | None = Field(
        default=None, description="PEM file with the public key that verifies tokens."
    )
    jwt_jwks_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None,
        description="HTTP or HTTPS URL of the JSON Web Key Set whose keys verify tokens.",
    )
    jwt_issuer: _Text | None = Field(
        default=None,
        description="Value that a token's `iss` claim must have; empty means any issuer.",
    )
    jwt_audience: _Text = Field(
        default="pushsvc", description="Value that a token's `aud` claim must contain."
    )
    allowed_origins: Annotated[tuple[_Origin, ...], BeforeValidator(_split)] = Field(
        default=(),
        description=(
            "Comma-separated origins (`scheme://host[:port]`, with `:*` any port) whose pages may"
            " connect, `*` for any;"
            " empty means only the origin of the request's own `Host` and clients that send no"
            " `Origin`, which are not browsers."
        ),
    )
    heartbeat_seconds: float = Field(
        default=25, ge=1, le=300, description="Seconds between a connection's heartbeats."
    )
    ack_window: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Notifications a connection may be sent ahead of its acknowledgements.",
    )
    ack_timeout_seconds: _Seconds = Field(
        default=30,
        description="Seconds after which a notification without acknowledgement is sent again.",
    )
    ack_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description=(
            "Times one connection is sent a notification without acknowledging it"
            " before it is closed."
        ),
    )
    mailbox_max: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Notifications kept in a mailbox; the oldest make room for new ones.",
    )
    retention_seconds: int = Field(
        default=604_800,
        ge=1,
        le=31_536_000,
        description="Seconds a notification without acknowledgement is kept.",
    )
    max_message_bytes: int = Field(
        default=65_536,
        ge=1024,
        le=16_777_216,
        description="Bytes of one message, from a client or in a publish request.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=268_435_456,
        description="Bytes of one HTTP request body; a batch publish holds many messages.",
    )
    max_connections: int = Field(
        default=18_000, ge=1, le=1_000_000, description="Sockets one worker holds."
    )
    max_connections_per_user: int = Field(
        default=32, ge=1, le=10_000, description="Connections one user holds, over all nodes."
    )
    max_handshakes: int = Field(
        default=512, ge=1, le=65_536, description="WebSocket handshakes in flight in one worker."
    )
    rate_messages_per_second: float = Field(
        default=10, ge=0.1, le=100_000, description="Messages per second from one connection."
    )
    rate_burst: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Messages one connection may send at once before the rate counts.",
    )
    rate_bytes_per_second: int = Field(
        default=131_072,
        ge=1024,
        le=1_073_741_824,
        description="Inbound bytes per second from one connection.",
    )
    publish_rate_per_second: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description=(
            "Publish requests per second from one publisher (a token's `sub`) to one worker;"
            " 0 means no limit."
        ),
    )
    lease_seconds: float = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds after which the connections of a silent node count as gone.",
    )
    sweep_seconds: _Seconds = Field(
        default=60,
        description="Seconds between two checks of each connection's feed and registration; the "
        "longest that a lost copy delays a notification.",
    )
    trace_events: int = Field(
        default=20_000,
        ge=0,
        le=200_000,
        description="Events a worker remembers, to trace notifications (about 250 bytes each).",
    )
    tracing: Literal["off", "otlp"] = Field(
        default="off",
        description=(
            "Spans of notifications that are published with a `traceparent`: `otlp` sends them to"
            " where the standard `OTEL_*` variables say."
        ),
    )
    drain_seconds: float = Field(
        default=25,
        ge=0,
        le=3600,
        description="Seconds a stopping node takes to send its clients elsewhere.",
    )
    drain_delay_seconds: float = Field(
        default=0,
        ge=0,
        le=3600,
        description=(
            "Seconds before that in which the node is unready and serves on, until load balancers"
            " have noticed."
        ),
    )
    max_connection_age_seconds: float = Field(
        default=0,
        ge=0,
        le=31_536_000,
        description=(
            "Seconds after which a connection is sent elsewhere, or up to a fifth earlier at"
            " random, so that new nodes get their share; 0 means no limit."
        ),
    )
    request_timeout_seconds: _Seconds = Field(
        default=10, description="Seconds in which a request's headers, then its body, must arrive."
    )
    webhook_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None,
        description="HTTP or HTTPS URL that receipts are sent on to; set the secret as well.",
    )
    webhook_secret: Annotated[SecretStr, AfterValidator(_check_webhook_secret)] | None = Field(
        default=None,
        description=(
            "Secret that signs them (Standard Webhooks): `whsec_` and the base64 of 24 to 64"
            " random bytes."
        ),
    )
    webhook_secret_file: Path | None = Field(
        default=None,
        description="File with that secret, in place of the variable; read at the start.",
    )
    log_format: Literal["console", "json"] | None = Field(
        default=None,
        description="Log format; empty means `console` when stderr is a terminal, else `json`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log level that is written."
    )

    @field_validator("redis_password_file", "redis_username")
    @classmethod
    def _check_login(cls, value: object, info: ValidationInfo) -> object:
        url = info.data.get("redis_url")
        if value is not None and url is not None and "@" in urlsplit(url.get_secret_value()).netloc:
            raise ValueError(
                f"is set and {PREFIX}REDIS_URL has a user or a password before its @:"
                " take those out of the URL"
            )
        return value

    @field_validator("redis_ca_file", "redis_cert_file", "redis_key_file")
    @classmethod
    def _check_tls(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("redis_url")
        if file is not None and url is not None and not url.get_secret_value().startswith("rediss"):
            raise ValueError(
                f"is set and {PREFIX}REDIS_URL is without TLS: write rediss in place of redis there"
            )
        return file

    @field_validator("redis_sentinel_password_file", "redis_sentinel_username")
    @classmethod
    def _check_sentinel(cls, value: object, info: ValidationInfo) -> object:
        url = info.data.get("redis_url")
        if value is not None and url is not None and "+sentinel:" not in url.get_secret_value():
            raise ValueError(f"is set and {PREFIX}REDIS_URL names no Sentinel: take one of the two")
        return value

    @field_validator("redis_username", "redis_sentinel_username")
    @classmethod
    def _check_username(cls, user: str | None, info: ValidationInfo) -> str | None:
        file = str(info.field_name).replace("username", "password_file")
        if user is not None and file in info.data and info.data[file] is None:
            raise ValueError(f"is set and {_variable(file)} is empty: set both, or no user")
        return user

    @field_validator("redis_key_file", "tls_key_file")
    @classmethod
    def _check_pair(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        certificate = str(info.field_name).replace("key", "cert")
        if certificate in info.data and (info.data[certificate] is None) != (key is None):
            raise ValueError(
                f"is {'empty' if key is None else 'set'} and {_variable(certificate)} is"
                f" {'set' if key is None else 'empty'}: set both or neither"
            )
        return key

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # Without a URL here that one was refused, which is told first.
        if "webhook_url" in info.data and (info.data["webhook_url"] is None) != (secret is None):
            raise ValueError(
                f"is {'empty' if secret is None else 'set'} and {PREFIX}WEBHOOK_URL is"
                f" {'set' if secret is None else 'empty'}: set both or neither"
            )
        return secret

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from the caller alone; see :func:`load`."""
        return (init_settings,)


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


_VARIABLES = {_variable(field): field for field in Settings.model_fields}

# A Service named "pushsvc" or "pushsvc-<more>" puts these into every pod of its namespace.
_SERVICE_LINK = re.compile(
    PREFIX
    + r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SERVICE_LINK_PORT = re.compile(PREFIX + r"(?:\w+_)?PORT=(?:tcp|udp|sctp)://.*", re.DOTALL)


class _Given(EnvSettingsSource):
    """Reads the mapping it is given; its base reads ``os.environ``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # Templates write an unset value as an empty one, so empty means not set. Lower case is how
        # the base looks names up; names that are not exactly ours are none of them.
        return {
            name.lower(): value
            for name, value in self._environ.items()
            if name in _VARIABLES and value
        }


def load(environ: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """Read and check all settings.

    Args:
        environ: environment variables; those that do not start with ``PUSHSVC_`` are ignored, an
            empty value counts as not set.
        overrides: values by field name (``"port"``), from command-line flags; these win over
            ``environ``. None counts as not given.

    Raises:
        SettingsError: a value cannot be used or a name is not known.
    """
    _check_names(environ)
    given = {field: value for field, value in overrides.items() if value is not None}
    for field in given:
        if field not in Settings.model_fields:
            raise SettingsError(_flag(_name(field)), "is not a setting")
    values = _Given(environ)() | given
    from_files = _read_secrets(values, given)
    try:
        return Settings(**(values | from_files))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    variable = _told(f"{field}_file" if field in from_files else field, given)
    # Raised outside the handler: a traceback must not print the cause, which knows the input.
    raise SettingsError(variable, _sentence(field, first))


def _read_secrets(values: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, str]:
    """The secrets that stand in files, as if they had been given themselves."""
    secrets = {}
    for field in _SECRETS:
        path = values.get(f"{field}_file")
        if path is None:
            continue
        variable = _told(f"{field}_file", given)
        if values.get(field) is not None:
            raise SettingsError(variable, f"is set and {_told(field, given)} too: take one of them")
        try:
            secrets[field] = read_secret(Path(str(path)))
        except SecretFileError as error:
            problem = str(error)
        else:
            continue
        raise SettingsError(variable, f"{_cut(repr(str(path)))} {problem}")
    return secrets


def _told(field: str, given: Mapping[str, object]) -> str:
    """What a setting was given by."""
    return _flag(field) if field in given else _variable(field)


def _check_names(environ: Mapping[str, str]) -> None:
    ours = sorted(name for name in environ if name.startswith(PREFIX))
    for name in ours:
        if _SERVICE_LINK.fullmatch(name) or _SERVICE_LINK_PORT.fullmatch(f"{name}={environ[name]}"):
            raise SettingsError(
                name,
                "comes from a Kubernetes Service of that name, not from you:"
                " set `enableServiceLinks: false` on the pod",
            )
    for name in ours:
        if name not in _VARIABLES:
            # without the prefix, which alone would make all names look alike
            close = difflib.get_close_matches(
                name.removeprefix(PREFIX).lower(), Settings.model_fields, n=1
            )
            hint = f": did you mean {_variable(close[0])}?" if close else ""
            raise SettingsError(_name(name), f"is not a setting{hint}")


def _name(name: str) -> str:
    """A name as one line of text; anything can stand in an environment."""
    return _cut(name if name.isprintable() else repr(name))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _sentence(field: str, error: ErrorDetails) -> str:
    """What is wrong with a value, beginning with the value unless that may be a secret."""
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            problem = str(context["error"])
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            problem = "is not an integer"
        case "float_parsing" | "float_type" | "finite_number":
            problem = "is not a number"
        case "greater_than_equal":
            problem = f"is less than {_number(context['ge'])}"
        case "less_than_equal":
            problem = f"is more than {_number(context['le'])}"
        case "literal_error" | "enum":
            problem = f"is not one of {', '.join(_choices(Settings.model_fields[field]))}"
        case _:
            problem = f"is refused: {' '.join(error['msg'].split())}"
    if error["input"] is None and field not in _SECRETS:
        return problem
    # A URL with a password that is malformed cannot be relied on to be masked.
    if field in {*_SECRETS, "redis_url", "webhook_url"} or "@" in str(error["input"]):
        return f"the value (not shown) {problem}"
    return f"{_cut(repr(error['input']))} {problem}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The values a setting can take, if these can be listed."""
    kinds = [field.annotation]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return tuple(kind)
        arguments = get_args(kind)
        if arguments and all(isinstance(argument, str) for argument in arguments):
            return tuple(arguments)
        kinds.extend(arguments)
    return ()


@dataclass(frozen=True)
class Row:
    """One setting, as the documentation and the command-line flags need it.

    Attributes:
        field: name in :class:`Settings` and in the ``overrides`` of :func:`load`.
        variable: environment variable.
        flag: command-line flag; None for secrets, as every user of a machine can read arguments.
        default: as one would write it; empty means not set.
        choices: the possible values, empty if these cannot be listed.
        bounds: smallest and largest number, None if it is not a number.
        help: one sentence, with units.
    """

    field: str
    variable: str
    flag: str | None
    default: str
    choices: tuple[str, ...]
    bounds: tuple[float, float] | None
    help: str


def rows() -> list[Row]:
    """All settings in the order in which to show them."""
    return [_row(name, field) for name, field in Settings.model_fields.items()]


def _row(name: str, field: FieldInfo) -> Row:
    match field.default:
        case None | ():
            default = ""
        case RedisURL():
            default = field.default.get_secret_value()
        case _:
            default = str(field.default)
    smallest, largest = (
        next(
            (bound for item in field.metadata if (bound := getattr(item, side, None)) is not None),
            None,
        )
        for side in ("ge", "le")
    )
    return Row(
        field=name,
        variable=_variable(name),
        flag=None if name in _SECRETS else _flag(name),
        default=default,
        choices=_choices(field),
        bounds=None if smallest is None or largest is None else (smallest, largest),
        help=str(field.description),
    )


_INTRODUCTION = """\
# Settings

Every setting is an environment variable; its command-line flag wins over the variable. An empty
variable counts as not set. All settings are checked when a node starts: it exits with one line that
names the variable if a value cannot be used, or if a variable starts with `PUSHSVC_` and is not in
this table. `PUSHSVC_JWT_SECRET` and `PUSHSVC_WEBHOOK_SECRET` have no flag, because every user of a
machine can read the arguments of its processes; prefer `PUSHSVC_REDIS_URL` to its flag when the URL
contains a password. Files are better: `PUSHSVC_JWT_SECRET_FILE`, `PUSHSVC_WEBHOOK_SECRET_FILE`,
`PUSHSVC_REDIS_PASSWORD_FILE`; one line end behind the secret does not count, and a file that is
missing, empty or unfit stops the start as well. [Redis](operations/redis.md) has its own page.

In Kubernetes, a Service named `pushsvc` puts variables such as `PUSHSVC_PORT=tcp://10.0.0.1:8080`
into the pods of its namespace: set `enableServiceLinks: false` on the pod.

This page is generated: `python -m pushsvc.settings > docs/settings.md`.
"""


def document() -> str:
    """The whole of ``docs/settings.md``."""
    lines = [
        _INTRODUCTION,
        "| Variable | Flag | Default | Accepts | Meaning |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        flag = f"`{row.flag}`" if row.flag else ""
        default = f"`{row.default}`" if row.default else "*empty*"
        accepts = ", ".join(f"`{choice}`" for choice in row.choices)
        if row.bounds:
            accepts = f"{_number(row.bounds[0])} to {_number(row.bounds[1])}"
        lines.append(f"| `{row.variable}` | {flag} | {default} | {accepts} | {row.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
