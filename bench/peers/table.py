"""What is told of the servers: the rows, the table in Markdown, and the rest beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

REFERENCE: Final = "Centrifugo"
"""What others are told as a multiple of."""

_NOTHING: Final = "\N{EN DASH}"
_TIMES: Final = "\N{MULTIPLICATION SIGN}"

Results = Mapping[str, Mapping[str, float]]
"""The medians: by server, then by figure."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table, of one figure or two.

    Args:
        title: what it is.
        unit: of the figures.
        figures: their names, as ``bench.peers.work`` measures them.
        digits: behind the point.
        of: the figure that this one is a part of: then it has no ratio.
    """

    title: str
    unit: str
    figures: tuple[str, ...]
    digits: int = 0
    of: str = ""


ROWS: Final = (
    Row("resident memory of an idle connection", "B", ("memory",)),
    Row("CPU of a handshake (token, registration), busy", "µs", ("handshake",)),
    Row("the same, 20 a second", "µs", ("handshake_rated",)),
    Row("CPU of a fan-out delivery, 10,000 subscribers", "µs", ("delivery",), 1),
    Row("publish one by one, 16 at once: server / Valkey CPU each", "µs",
        ("publish_server", "publish_valkey")),
    Row("the same at 500 a second, open loop", "µs", ("rated_server", "rated_valkey")),
    Row("receive latency there, p50 / p99", "ms", ("rated_p50", "rated_p99"), 1),
    Row("batches of 100: server / Valkey CPU each", "µs", ("batch_server", "batch_valkey")),
    Row("received in those batches", "", ("batch_received",), of="batch_sent"),
)  # fmt: skip

WORK: Final = {
    "delivery": "fan-out",
    "publish": "one by one",
    "rated": "at 500 a second",
    "batch": "in batches",
}
"""What is counted when it is published, and when it is received."""

CHECKS: Final = {
    "handshakes/s": "handshakes",
    "publishes/s": "publishes one by one",
    "batched/s": "notifications in batches",
    "deliveries/s": "fan-out deliveries",
}
"""Rates a second, by which the generator is checked."""


def markdown(results: Results, notes: Mapping[str, str]) -> str:
    """The table of all servers, and what each does not do."""
    names = list(results)
    lines = [
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {row.title} | " + " | ".join(_cell(row, results, name) for name in names) + " |"
            for row in ROWS
        ),
        "",
        *(f"- **{name}**: {note}." for name, note in notes.items() if name in results),
    ]
    return "\n".join(lines)


def _cell(row: Row, results: Results, name: str) -> str:
    values = [results[name].get(figure) for figure in row.figures]
    if None in values:
        return _NOTHING
    text = " / ".join(f"{value:,.{row.digits}f}" for value in values if value is not None)
    if row.of:
        return f"{text} of {results[name][row.of]:,.0f}"
    text += f" {row.unit}"
    if name == REFERENCE or REFERENCE not in results:
        return text
    return f"{text} ({' / '.join(_ratio(results, name, figure) for figure in row.figures)})"


def _ratio(results: Results, name: str, figure: str) -> str:
    """A multiple of the reference's figure; a dash where it has none."""
    base = results[REFERENCE].get(figure)
    if not base:
        return _NOTHING
    ratio = results[name][figure] / base
    return f"{ratio:,.0f} {_TIMES}" if ratio >= 10 else f"{ratio:.2g} {_TIMES}"


def shortfalls(results: Results) -> Sequence[str]:
    """What was accepted of a server and not received."""
    return [
        f"{name}: of {measured[f'{work}_sent']:,.0f} ({what}) "
        f"{measured[f'{work}_received']:,.0f} were received"
        for name, measured in results.items()
        for work, what in WORK.items()
        if measured.get(f"{work}_received", 0) < measured.get(f"{work}_sent", 0)
    ]


def checked(results: Results, null: Mapping[str, float]) -> Sequence[str]:
    """How fast the generator is alone, and how much faster than the fastest server."""
    lines = []
    for figure, what in CHECKS.items():
        fastest = max(results, key=lambda name: results[name].get(figure, 0.0))
        if figure not in null or figure not in results[fastest]:
            continue
        most = results[fastest][figure]
        lines.append(
            f"generator: {null[figure]:,.0f} {what} a second against a null server; "
            f"the fastest here, {fastest}, {most:,.0f}: {null[figure] / most:.1f} {_TIMES}"
        )
    return lines
