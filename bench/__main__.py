"""``python -m bench``: measures what the documentation claims, on this machine."""

import argparse
import json
import sys

from bench import (
    acked,
    bystander,
    console,
    fanout,
    handshakes,
    memory,
    million,
    one_token,
    pauses,
    publishers,
    push,
    seen,
    sizing,
    tls,
)
from bench.harness import Figure, pin
from bench.peers import comparison

BENCHMARKS = {
    "memory": memory.run,
    "handshakes": handshakes.run,
    "acked": acked.run,
    "fanout": fanout.run,
    "bystander": bystander.run,
    "pauses": pauses.run,
    "console": console.run,
    "publishers": publishers.run,
    "one_token": one_token.run,
    "push": push.run,
    "seen": seen.run,
    "sizing": sizing.run,
    "tls": tls.run,
}


def main() -> int:
    """Run what is asked for; 1 where a bar is missed."""
    if sys.argv[1:2] == ["peers"]:  # not of those that a node is held to, with options of its own
        return comparison.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        epilog="`python -m bench peers --help`: the comparison with other servers",
    )  # fmt: skip
    parser.add_argument(
        "names",
        nargs="*",
        metavar="benchmark",
        help=f"any of {', '.join(BENCHMARKS)}, million; all if none",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--profile", action="store_true",
        help="run the node of handshakes and acked under cProfile; the figures are not comparable",
    )  # fmt: skip
    parser.add_argument(
        "--sockets", type=int, metavar="N",
        help=f"of million; {million.SOCKETS:,} if it is named, else {million.FEW:,}",
    )  # fmt: skip
    arguments = parser.parse_args()
    sockets = arguments.sockets or (million.SOCKETS if arguments.names else million.FEW)
    benchmarks = BENCHMARKS | {"million": lambda **_: million.run(sockets)}
    unknown = set(arguments.names) - set(benchmarks)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    pin(0, -1)
    results = {}
    for name in arguments.names or benchmarks:
        results[name] = benchmarks[name](profile=arguments.profile)
        if not arguments.json:
            _print(name, results[name])
    if arguments.json:
        print(json.dumps({n: [f.as_json() for f in figures] for n, figures in results.items()}))
    return int(any(f.passed is False for figures in results.values() for f in figures))


def _print(name: str, figures: list[Figure]) -> None:
    print(f"\n{name}")
    for figure in figures:
        verdict = {None: "", True: "pass", False: "FAIL"}[figure.passed]
        print(
            f"  {figure.name:<44}{figure.value:>12,.2f} {figure.unit:<6}{figure.bar:>10}  {verdict}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
