"""What a setting is called, in the environment and on a command line."""

from typing import Final

PREFIX: Final = "PUSHSVC_"

# Every user of a machine can read the arguments of its processes, so these have no flag.
SECRETS: Final = ("jwt_secret", "webhook_secret")

NEVER_EMPTY: Final = ("jwt_audience",)
"""Fields that an empty variable sets: whoever empties this one means to look at no audience."""


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def flag(field: str) -> str:
    """The command-line flag of a field."""
    return "--" + field.replace("_", "-")
