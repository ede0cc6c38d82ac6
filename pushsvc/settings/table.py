"""The table of all settings: names, types, defaults and what they mean.

The code, the command-line flags, the documentation and the tests read this.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pushsvc.settings.combinations import (
    with_apns_key,
    with_audience_claim,
    with_bare_url,
    with_certificate,
    with_password_file,
    with_redis_tls,
    with_sentinel,
    with_vapid_key,
    with_webhook_url,
)
from pushsvc.settings.names import PREFIX
from pushsvc.settings.values import (
    MIN_SECRET_BYTES,
    URL,
    Algorithms,
    AppleID,
    Claim,
    ClaimNames,
    Durability,
    Origins,
    Port,
    PushHosts,
    RedisPrefix,
    RedisServer,
    RedisURL,
    Seconds,
    SharedSecret,
    Subject,
    Text,
    Texts,
    WebhookSecret,
)


class Settings(BaseSettings):
    """The settings of one node, checked and frozen.

    The constructor reads the environment no more than :func:`~pushsvc.settings.loading.load` does;
    it takes values by field name and raises pydantic's ``ValidationError``.
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

    host: Text = Field(
        default="0.0.0.0", description="Address that clients connect to; `::` is IPv4 and IPv6."
    )
    port: Port = Field(
        default=8080, description="TCP port that clients connect to; 0 takes any free port."
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the certificate, and behind it those between it and the authority, for"
            " TLS on that port, which then serves nothing else; read again when it changes."
        ),
    )
    tls_key_file: Annotated[Path | None, AfterValidator(with_certificate)] = Field(
        default=None, description="PEM file with that certificate's private key, not encrypted."
    )
    admin_host: Text = Field(
        default="0.0.0.0",
        description="Address of the health checks and the metrics; `::` is IPv4 and IPv6.",
    )
    admin_port: Port = Field(
        default=9090,
        description="TCP port of the health checks and the metrics; 0 takes any free port.",
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Processes that serve clients, on the same port."
    )
    redis_url: RedisServer = Field(
        default=RedisURL("redis://127.0.0.1:6379/0"),
        description=(
            "Redis or Valkey server: `redis://host:port/database`, `unix:///path`,"
            " `redis+sentinel://host:port,host:port/name` or"
            " `redis+cluster://host:port,host:port`; `rediss` in place of `redis` is TLS."
        ),
    )
    redis_password_file: Annotated[Path | None, AfterValidator(with_bare_url)] = Field(
        default=None,
        description=(
            "File with the password for Redis, in place of one in the URL;"
            " read again for each new connection."
        ),
    )
    redis_username: Annotated[
        Text | None, AfterValidator(with_bare_url), AfterValidator(with_password_file)
    ] = Field(
        default=None,
        description="User (ACL) of that password; empty means Redis' user `default`.",
    )
    redis_ca_file: Annotated[Path | None, AfterValidator(with_redis_tls)] = Field(
        default=None,
        description=(
            "PEM file with the authorities that may certify Redis and Sentinel;"
            " empty means those of the system."
        ),
    )
    redis_cert_file: Annotated[Path | None, AfterValidator(with_redis_tls)] = Field(
        default=None,
        description="PEM file with the certificate that this node shows to Redis and Sentinel.",
    )
    redis_key_file: Annotated[
        Path | None, AfterValidator(with_redis_tls), AfterValidator(with_certificate)
    ] = Field(
        default=None, description="PEM file with that certificate's private key, not encrypted."
    )
    redis_sentinel_password_file: Annotated[Path | None, AfterValidator(with_sentinel)] = Field(
        default=None,
        description=(
            "File with the password for the Sentinel processes themselves;"
            " empty means that they ask for none."
        ),
    )
    redis_sentinel_username: Annotated[
        Text | None, AfterValidator(with_sentinel), AfterValidator(with_password_file)
    ] = Field(
        default=None,
        description="User (ACL) of that password; empty means Sentinel's user `default`.",
    )
    redis_prefix: RedisPrefix = Field(
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
    durability_timeout_seconds: Seconds = Field(
        default=2, description="Seconds a publish waits for that durability before it fails."
    )
    jwt_algorithms: Algorithms = Field(
        default=(),
        description=(
            "Comma-separated signature algorithms that tokens may use;"
            " empty means those that fit the configured key."
        ),
    )
    jwt_secret: SharedSecret | None = Field(
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
        default=None,
        description=(
            "PEM file with the public key that verifies tokens, or with its certificate;"
            " with up to four of them while one takes the place of another."
        ),
    )
    jwt_jwks_url: URL | None = Field(
        default=None,
        description="HTTP or HTTPS URL of the JSON Web Key Set whose keys verify tokens.",
    )
    jwt_ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the authorities that may certify what keys are fetched from;"
            " empty means those of the system; read again when it changes."
        ),
    )
    jwt_issuer: Text | None = Field(
        default=None,
        description=(
            "Value that a token's `iss` claim must have; empty means any issuer."
            " Without any of the secrets, keys and URLs above, keys are where the issuer says"
            " (OpenID Connect discovery at this HTTP or HTTPS URL)."
        ),
    )
    jwt_audience_claim: Claim = Field(
        default="aud",
        description=(
            "Claim that holds the audience, such as `client_id` or `azp`;"
            " `none` accepts any audience, so that the issuer's tokens for other services are good"
            " here as well."
        ),
    )
    jwt_audience: Annotated[Texts, AfterValidator(with_audience_claim)] = Field(
        default=("pushsvc",),
        description="Comma-separated values of which that claim must be or contain one.",
    )
    jwt_user_claim: Claim = Field(
        default="sub",
        description=(
            "Claim that names the user; here and below, dots lead through nested objects where"
            " no claim has the whole name."
        ),
    )
    jwt_scope_claims: ClaimNames = Field(
        default=("scope",),
        description=(
            "Comma-separated claims with scopes, each one string of them or a list:"
            " `scope,scp`, `roles`, `permissions`, `realm_access.roles`."
        ),
    )
    jwt_scope_prefix: Texts = Field(
        default=(),
        description=(
            "Comma-separated beginnings that are taken off scopes, such as `push/` or"
            " `api://push/`; a scope that has none of them is read as it is."
        ),
    )
    jwt_topics_claim: Claim = Field(
        default="topics", description="Claim that holds the patterns of topics."
    )
    auth_file: Path | None = Field(
        default=None,
        description=(
            "TOML file of issuers, in place of all `JWT_` variables but `JWT_CA_FILE`;"
            " read again when it changes; [authentication.md](authentication.md) has its keys."
        ),
    )
    allowed_origins: Origins = Field(
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
    ack_timeout_seconds: Seconds = Field(
        default=30,
        description="Seconds after which a notification without acknowledgement is sent again.",
    )
    acks_gather_seconds: float = Field(
        default=0.02,
        ge=0,
        le=0.025,
        description="Seconds for which acknowledgements gather before they are written, those that "
        "nobody waits for; 0 for none. They are what a node's death loses, and comes again.",
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
    max_bodies_bytes: int = Field(
        default=33_554_432,
        ge=65_536,
        le=68_719_476_736,
        description="Bytes of all HTTP request bodies that one worker is reading or has not "
        "answered yet; never less than MAX_BODY_BYTES.",
    )
    max_connections: int = Field(
        default=18_000, ge=1, le=1_000_000, description="Sockets one worker holds."
    )
    max_connections_per_user: int = Field(
        default=32, ge=1, le=10_000, description="Connections one user holds, over all nodes."
    )
    max_handshakes: int = Field(
        default=512,
        ge=1,
        le=65_536,
        description="Handshakes and polls being let in at once in one worker, and handshakes that "
        "wait while none of them goes on, for a second or for keys.",
    )
    rate_messages_per_second: float = Field(
        default=10,
        ge=0.1,
        le=100_000,
        description="Messages per second from one connection, and from one user to one "
        "worker requests; five times as many new connections, ten times as many polls.",
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
    client_bytes_per_user: int = Field(
        default=16_777_216,
        ge=0,
        le=1_099_511_627_776,
        description=(
            "Bytes that one user may store by publishing with `topics.publish`, over all nodes;"
            " 0 means no limit."
        ),
    )
    client_bytes_seconds: int = Field(
        default=21_600,
        ge=1,
        le=31_536_000,
        description="Seconds in which a user who has stored that many may store as many again.",
    )
    client_bytes_per_topic: int = Field(
        default=67_108_864,
        ge=0,
        le=1_099_511_627_776,
        description=(
            "Bytes in a topic from which on clients may not publish to it, though backends may;"
            " 0 means no limit. Keep it a multiple of CLIENT_BYTES_PER_USER, at least twice that:"
            " no user alone may fill a topic for everybody."
        ),
    )
    lease_seconds: float = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds after which the connections of a silent node count as gone.",
    )
    sweep_seconds: Seconds = Field(
        default=60,
        description="Seconds between two checks of each connection's feed and registration; the "
        "longest that a lost entry delays a notification.",
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
    request_timeout_seconds: Seconds = Field(
        default=10, description="Seconds in which a request's headers, then its body, must arrive."
    )
    webhook_url: URL | None = Field(
        default=None,
        description="HTTP or HTTPS URL that receipts are sent on to; set the secret as well.",
    )
    webhook_secret: Annotated[WebhookSecret | None, AfterValidator(with_webhook_url)] = Field(
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
    push_after_seconds: float | None = Field(
        default=None,
        ge=0,
        le=2_592_000,
        description=(
            "Seconds after which a device that has not acknowledged a notification published with"
            " `push` is sent a push, where the publish does not say; empty means that each says it."
        ),
    )
    push_vapid_key_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the P-256 private key that signs pushes to browsers (Web Push, VAPID);"
            " a second key in it is one of before, which subscriptions were made with."
        ),
    )
    push_vapid_subject: Annotated[Subject | None, AfterValidator(with_vapid_key)] = Field(
        default=None,
        description=(
            "Where push services reach you about those pushes: `mailto:` and an address, or an"
            " `https:` URL; set the key as well."
        ),
    )
    push_apns_key_file: Path | None = Field(
        default=None,
        description="File with the key of Apple's push service (`.p8`), for devices of Apple.",
    )
    push_apns_key_id: Annotated[AppleID | None, AfterValidator(with_apns_key)] = Field(
        default=None, description="Id of that key, 10 characters."
    )
    push_apns_team_id: Annotated[AppleID | None, AfterValidator(with_apns_key)] = Field(
        default=None, description="Id of the team in Apple's developer account, 10 characters."
    )
    push_apns_url: URL | None = Field(
        default=None,
        description="HTTP or HTTPS URL in place of Apple's, for tests and relays.",
    )
    push_fcm_credentials_file: Path | None = Field(
        default=None,
        description=(
            "JSON file of a service account of Firebase, for devices that Firebase Cloud Messaging"
            " (FCM) reaches."
        ),
    )
    push_fcm_url: URL | None = Field(
        default=None,
        description="HTTP or HTTPS URL in place of that of FCM, for tests and relays.",
    )
    push_content: Literal["full", "ids"] = Field(
        default="full",
        description=(
            "What providers are given: the text of a push, or `ids` only, with which the device"
            " fetches the text here."
        ),
    )
    push_hosts: PushHosts = Field(
        default=(),
        description=(
            "Hosts that subscriptions of browsers may name besides the known push services,"
            " comma-separated: a host, `*.` and a domain for all below it, `*` for any public host."
        ),
    )
    push_allow_private: bool = Field(
        default=False,
        description=(
            "Whether subscriptions may name any host and port, private ones and plain HTTP too:"
            " for tests only, as whoever may register then has this server call what it can reach."
        ),
    )
    push_ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file with the authorities that may certify push services and providers; empty"
            " means those of the system."
        ),
    )
    log_format: Literal["console", "json"] | None = Field(
        default=None,
        description="Log format; empty means `console` when stderr is a terminal, else `json`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log level that is written."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from the caller alone; see :func:`~pushsvc.settings.loading.load`."""
        return (init_settings,)
