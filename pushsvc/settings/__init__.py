"""Every setting, once: the code, the command-line flags, the documentation and the tests read this.

A setting is the environment variable ``PUSHSVC_<NAME>``; a command-line flag overrides it. Nothing
is read implicitly: neither ``os.environ`` nor a ``.env`` file, only the mapping that :func:`load`
is given. ``python -m pushsvc.settings > docs/settings.md`` writes the documentation.
"""

from pushsvc.settings.document import document
from pushsvc.settings.loading import SettingsError, load
from pushsvc.settings.names import PREFIX
from pushsvc.settings.rows import Row, rows
from pushsvc.settings.table import Settings
from pushsvc.settings.values import Durability, RedisURL

__all__ = [
    "PREFIX",
    "Durability",
    "RedisURL",
    "Row",
    "Settings",
    "SettingsError",
    "document",
    "load",
    "rows",
]
