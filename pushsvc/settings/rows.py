"""The table as the documentation, the command-line flags and the error messages need it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

from pydantic.fields import FieldInfo

from pushsvc.settings.names import SECRETS, flag, variable
from pushsvc.settings.table import Settings
from pushsvc.settings.values import RedisURL


@dataclass(frozen=True)
class Row:
    """One setting, as the documentation and the command-line flags need it.

    Attributes:
        field: name in :class:`~pushsvc.settings.table.Settings` and in the ``overrides`` of
            :func:`~pushsvc.settings.loading.load`.
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
        case bool():
            default = str(field.default).lower()
        case RedisURL():
            default = field.default.get_secret_value()
        case tuple():
            default = ",".join(field.default)
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
        variable=variable(name),
        flag=None if name in SECRETS else flag(name),
        default=default,
        choices=choices(field),
        bounds=None if smallest is None or largest is None else (smallest, largest),
        help=str(field.description),
    )


def number(value: float) -> str:
    """A bound as one would write it."""
    return str(int(value)) if value == int(value) else str(value)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The values a setting can take, if these can be listed."""
    if field.annotation is bool:
        return ("true", "false")
    kinds = [field.annotation]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return tuple(kind)
        arguments = get_args(kind)
        if arguments and all(isinstance(argument, str) for argument in arguments):
            return tuple(arguments)
        kinds.extend(arguments)
    return ()
