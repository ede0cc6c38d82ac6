"""Which series an expression reads, and by which labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import promql_parser as promql

_REGEX: Final = (promql.MatchOp.Re, promql.MatchOp.NotRe)


@dataclass(frozen=True)
class Matcher:
    """One condition on a label, and the values that it names.

    Args:
        label: the label.
        patterns: regular expressions, each for the whole value.
        values: values as they are.
    """

    label: str
    patterns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selector:
    """A series that is read."""

    metric: str
    matchers: tuple[Matcher, ...]


@dataclass(frozen=True)
class Expression:
    """What an expression reads, and the labels that it groups by or matches on."""

    selectors: tuple[Selector, ...]
    grouping: frozenset[str]


def parse(text: str) -> Expression:
    """What an expression reads, Grafana's own interval included.

    Raises:
        ValueError: it is no PromQL.
    """
    nodes: list[promql.Expr] = []
    promql.walk(promql.parse(text.replace("$__rate_interval", "5m")), nodes.append)
    selectors = [_selector(node) for node in nodes if isinstance(node, promql.VectorSelector)]
    selectors += [
        _selector(node.vector_selector) for node in nodes if isinstance(node, promql.MatrixSelector)
    ]
    return Expression(tuple(selectors), frozenset(label for n in nodes for label in _grouping(n)))


def _selector(node: promql.VectorSelector) -> Selector:
    if node.name is None:
        raise ValueError(f"a selector without a metric: {node}")
    return Selector(node.name, tuple(_matcher(each) for each in node.matchers.matchers))


def _matcher(matcher: promql.Matcher) -> Matcher:
    if matcher.op in _REGEX:
        return Matcher(matcher.name, patterns=tuple(matcher.value.split("|")))
    return Matcher(matcher.name, values=(matcher.value,))


def _grouping(node: promql.Expr) -> Iterator[str]:
    if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
        yield from node.modifier.labels
    if isinstance(node, promql.BinaryExpr) and node.modifier is not None:
        if node.modifier.matching is not None:
            yield from node.modifier.matching.labels
        yield from node.modifier.group_labels or ()
