"""The page of documentation that is made of the table."""

from typing import Final

from pushsvc.settings.rows import number, rows

_INTRODUCTION: Final = """\
# Settings

Every setting is an environment variable; its command-line flag wins over the variable. An empty
variable counts as not set, except `PUSHSVC_JWT_AUDIENCE`, which is then refused. All settings are
checked when a node starts: it exits with one line that names the variable if a value cannot be
used, or if a variable starts with `PUSHSVC_` and is not in this table. `PUSHSVC_JWT_SECRET` and
`PUSHSVC_WEBHOOK_SECRET` have no flag, because every user of a machine can read the arguments of its
processes; prefer `PUSHSVC_REDIS_URL` to its flag when the URL contains a password. Files are
better: `PUSHSVC_JWT_SECRET_FILE`, `PUSHSVC_WEBHOOK_SECRET_FILE`, `PUSHSVC_REDIS_PASSWORD_FILE`; one
line end behind the secret does not count, and a file that is missing, empty or unfit stops the
start as well. [Redis](operations/redis.md) has its own page.

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
            accepts = f"{number(row.bounds[0])} to {number(row.bounds[1])}"
        lines.append(f"| `{row.variable}` | {flag} | {default} | {accepts} | {row.help} |")
    return "\n".join(lines) + "\n"
