"""Reading the settings from an environment and from flags, and saying what is wrong with them."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from pushsvc.settings.names import NEVER_EMPTY, PREFIX, SECRETS, flag, variable
from pushsvc.settings.rows import choices, number
from pushsvc.settings.secret_files import SecretFileError, read_secret
from pushsvc.settings.table import Settings

# Longer values are cut in error messages: a line in a log, not the whole pasted file.
_SHOWN: Final = 80

_VARIABLES = {variable(field): field for field in Settings.model_fields}

# A Service named "pushsvc" or "pushsvc-<more>" puts these into every pod of its namespace.
_SERVICE_LINK = re.compile(
    PREFIX
    + r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SERVICE_LINK_PORT = re.compile(PREFIX + r"(?:\w+_)?PORT=(?:tcp|udp|sctp)://.*", re.DOTALL)


class SettingsError(Exception):
    """A setting cannot be used.

    Args:
        variable: the environment variable or the command-line flag that is wrong.
        message: what is wrong with it, and what to write instead; one line, without secrets.
        advice: what to change, where the message does not say it.
    """

    def __init__(self, variable: str, message: str, advice: str = "") -> None:
        super().__init__(f"{variable}: {message}{advice and ': '}{advice}")
        self.variable = variable
        self.message = message
        self.advice = advice


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
            if name in _VARIABLES and (value or _VARIABLES[name] in NEVER_EMPTY)
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
            raise SettingsError(flag(_name(field)), "is not a setting")
    values = _Given(environ)() | given
    from_files = _read_secrets(values, given)
    _check_one_way_of_issuers(values, given)
    try:
        return Settings(**(values | from_files))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    name = _given_as(f"{field}_file" if field in from_files else field, given)
    # Raised outside the handler: a traceback must not print the cause, which knows the input.
    raise SettingsError(name, _sentence(field, first))


def _read_secrets(values: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, str]:
    """The secrets that stand in files, as if they had been given themselves."""
    secrets = {}
    for field in SECRETS:
        path = values.get(f"{field}_file")
        if path is None:
            continue
        name = _given_as(f"{field}_file", given)
        if values.get(field) is not None:
            raise SettingsError(name, f"is set and {_given_as(field, given)} too: take one of them")
        try:
            secrets[field] = read_secret(Path(str(path)))
        except SecretFileError as error:
            problem = str(error)
        else:
            continue
        raise SettingsError(name, f"{_cut(repr(str(path)))} {problem}")
    return secrets


def _check_one_way_of_issuers(values: Mapping[str, Any], given: Mapping[str, object]) -> None:
    """The file of issuers has all that the variables of a single issuer say."""
    if values.get("auth_file") is None:
        return
    for field in values:
        if field.startswith("jwt_") and field != "jwt_ca_file":
            raise SettingsError(
                _given_as("auth_file", given),
                f"is set and {_given_as(field, given)} too: move that issuer into the file",
            )


def _given_as(field: str, given: Mapping[str, object]) -> str:
    """What a setting was given by."""
    return flag(field) if field in given else variable(field)


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
            hint = f": did you mean {variable(close[0])}?" if close else ""
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
            problem = f"is less than {number(context['ge'])}"
        case "less_than_equal":
            problem = f"is more than {number(context['le'])}"
        case "literal_error" | "enum" | "bool_parsing":
            problem = f"is not one of {', '.join(choices(Settings.model_fields[field]))}"
        case _:
            problem = f"is refused: {' '.join(error['msg'].split())}"
    if error["input"] is None and field not in SECRETS:
        return problem
    # A URL with a password that is malformed cannot be relied on to be masked.
    if field in {*SECRETS, "redis_url", "webhook_url"} or "@" in str(error["input"]):
        return f"the value (not shown) {problem}"
    return f"{_cut(repr(error['input']))} {problem}"
