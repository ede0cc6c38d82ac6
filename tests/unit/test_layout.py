"""Where tests belong: a file a module, units without a server, shared parts in helpers."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "pushsvc"
SELF = Path(__file__).name

IO = {
    "aiohttp", "asyncio", "click", "concurrent", "fcntl", "http", "logging", "multiprocessing",
    "opentelemetry", "os", "prometheus_client", "redis", "resource", "select", "selectors",
    "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "tempfile", "threading",
    "tornado", "urllib3", "uvloop", "websockets",
}  # fmt: skip
"""A module that reaches none of these by its imports is pure."""

ELSEWHERE = {
    "admin/dev": "integration/test_dev_tokens.py::test_serve_makes_no_tokens",
    "admin/port": "integration/test_admin.py::test_livez_and_readyz_say_that_the_node_is_well",
    "client/async_publisher": "integration/test_client_publisher.py"
    "::test_what_is_published_in_one_moment_goes_as_one_batch",
    "client/batches": "integration/test_client_publisher.py"
    "::test_a_batch_whose_answer_is_lost_is_published_once",
    "client/connection": "integration/test_client_python.py"
    "::test_listen_gives_notifications_in_order_and_acks_each_when_the_next_is_asked_for",
    "client/core": "integration/test_client_backend.py"
    "::test_the_history_goes_on_page_by_page_until_its_end_or_its_limit",
    "client/forks": "integration/test_client_forks.py",
    "client/http": "integration/test_client_publisher.py::test_a_refused_token_is_replaced",
    "client/inbox": "integration/test_client_inbox.py",
    "client/incoming": "integration/test_client_python.py"
    "::test_what_is_withdrawn_while_it_waits_for_the_program_is_not_given",
    "client/listening": "integration/test_client_python.py"
    "::test_a_loop_that_an_error_left_is_given_the_same_notification_again",
    "client/publisher": "integration/test_client_publisher.py"
    "::test_what_is_published_has_a_receipt_and_all_its_fields",
    "client/threads": "integration/test_client_publisher.py"
    "::test_what_is_published_in_one_moment_goes_as_one_batch",
    "client/tokens": "integration/test_client_publisher.py::test_a_refused_token_is_replaced",
    "client/wire": "integration/test_client_python.py"
    "::test_nothing_is_missing_or_handled_twice_when_the_node_dies_again_and_again",
    "egress": "integration/server/test_fetch.py::test_a_proxy_of_the_environment_is_used",
    "feeds/departures": "integration/feeds/test_schedule.py"
    "::test_everything_is_out_once_or_recalled_however_many_try_and_die",
    "feeds/publisher": "integration/test_publish.py"
    "::test_the_answer_names_the_id_the_durability_and_who_listens",
    "cli/client": "integration/test_cli.py",
    "cli/asking": "integration/test_cli_backend.py",
    "cli/doctor": "integration/server/test_doctor.py",
    "cli/settings": "integration/test_cli.py",
    "cli/server": "integration/test_cli.py",
    "feeds/trace_answers": "integration/admin/test_trace.py",
    "node/mailboxes": "cluster/test_mailbox_model.py::test_every_interleaving_keeps_the_promises",
    "node/node": "integration/node/test_dispatcher.py",
    "node/observer": "integration/test_trace.py"
    "::test_a_trace_goes_from_accepted_to_acknowledged_over_two_nodes",
    "node/registrations": "integration/node/test_dispatcher.py"
    "::test_everyone_is_registered_under_the_new_id_and_under_no_other",
    "store/inspection": "integration/server/test_redis_doctor.py",
    "store/blocking": "integration/feeds/test_nodes.py",
    "testing/local_node": "integration/test_testing.py"
    "::test_its_tokens_are_taken_and_open_what_they_say",
    "testing/fixtures": "integration/test_testing.py"
    "::test_the_tests_of_the_guide_pass_as_they_stand_there_and_leave_nothing",
    "web/push": "integration/test_push_api.py",
    "web/event_stream": "integration/test_stream.py",
    "node/catch_up": "cluster/test_mailbox_model.py::test_every_interleaving_keeps_the_promises",
    "node/inbox_reader": "cluster/test_faults.py"
    "::test_an_inbox_trimmed_unread_costs_time_and_nothing_else",
    "node/membership": "cluster/test_faults.py"
    "::test_a_node_that_was_stopped_is_fenced_and_comes_back_under_a_new_id",
    "node/requests": "integration/test_messages.py",
    "server/build": "integration/test_topologies.py::test_notifications_are_delivered_and_acked",
    "server/console": "integration/test_console_api.py"
    "::test_every_worker_of_every_node_is_listed_whichever_is_asked",
    "server/telemetry": "integration/test_tracing.py"
    "::test_publish_delivery_and_ack_are_spans_of_one_trace_over_two_nodes",
    "server/worker": "integration/test_drain.py",
    "store/scripts": "integration/store/test_pipeline_queue.py"
    "::test_a_server_without_scripts_gets_them_before_the_first_command",
    "store/shard": "unit/store/test_cluster.py",
    "store/slots": "unit/store/test_cluster.py",
    "web/api": "integration/test_openapi.py",
    "web/base": "integration/test_refusals.py",
    "web/bridge": "integration/test_documents.py",
    "web/revocations": "integration/test_revocation.py::test_only_an_administrator_revokes",
}
"""The tests of modules that have no file of their name: a file below ``tests``, or one test in it.

Each says where to begin reading.
"""


def modules() -> dict[str, Path]:
    """Every module with something in it, by its path without the package's name and the suffix."""
    found = (each.relative_to(PACKAGE) for each in PACKAGE.rglob("*.py"))
    return {
        each.with_suffix("").as_posix(): PACKAGE / each
        for each in sorted(found)
        if not each.name.startswith("__")
    }


MODULES = modules()


def imported(file: Path) -> Iterator[str]:
    """The names of all that a file imports, in dotted form."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@cache
def reached(module: str) -> frozenset[str]:
    """The libraries that a module imports, also by what it imports of the package."""
    libraries: set[str] = set()
    for name in imported(MODULES[module]):
        top, _, rest = name.partition(".")
        if top != "pushsvc":
            libraries.add(top)
        elif (inner := rest.replace(".", "/")) in MODULES:
            libraries |= reached(inner)
    return frozenset(libraries)


def own_files(folder: str, module: str) -> list[str]:
    """Where the file of a module's name may be in a folder of the tests."""
    package, _, name = module.rpartition("/")
    mirrored = [f"{folder}/{package}/test_{name}.py" if package else f"{folder}/test_{name}.py"]
    if package and folder == "unit":  # of a package that is one thing, such as the settings
        above, _, last = package.rpartition("/")
        mirrored.append(f"{folder}/{above}/test_{last}.py" if above else f"{folder}/test_{last}.py")
    if package and folder == "integration":
        mirrored.append(f"{folder}/test_{name}.py")
    return mirrored


def there(files: list[str]) -> bool:
    return any((TESTS / each).is_file() for each in files)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_file(module: str) -> None:
    unit, whole = own_files("unit", module), own_files("integration", module)
    pure = module.startswith("protocol/") or not reached(module) & IO
    if pure:
        assert there(unit), f"pushsvc/{module}.py is pure: test it in tests/{unit[0]}"
    else:
        assert there(unit) or there(whole) or module in ELSEWHERE, (
            f"nothing says where pushsvc/{module}.py is tested: write tests/{unit[0]} if that "
            f"needs no server, else tests/{whole[0]}, or name a test in ELSEWHERE of {SELF}"
        )


@pytest.mark.parametrize("module", ELSEWHERE)
def test_the_table_names_modules_and_tests_that_are_there(module: str) -> None:
    assert module in MODULES, f"ELSEWHERE of {SELF}: there is no pushsvc/{module}.py any more"
    files = own_files("unit", module)[:1] + own_files("integration", module)
    assert not there(files), f"ELSEWHERE of {SELF}: {module} has a file of its own now"
    name, _, test = ELSEWHERE[module].partition("::")
    file = TESTS / name
    assert file.is_file(), f"ELSEWHERE of {SELF}: {module} names {name}, which is not there"
    assert f"def {test}" in file.read_text(), f"ELSEWHERE of {SELF}: {name} has no {test}"


FILES = [each.relative_to(TESTS).as_posix() for each in sorted(TESTS.rglob("*.py"))]
UNITS = [each for each in FILES if each.startswith("unit/")]


@pytest.mark.parametrize("file", FILES)
def test_what_tests_share_is_in_helpers(file: str) -> None:
    taken = {
        name
        for name in imported(TESTS / file)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert not taken, f"tests/{file}: move what it takes from {min(taken)} to a helper"


SERVERS = {
    "pushsvc.server.embedded.EmbeddedServer",
    "tests.support.nodes.Node",
    "tests.support.nodes.nodes",
    "tornado.httpserver.HTTPServer",
}
SERVING = ("tests.support.failover", "tests.support.proxy", "tests.support.services")


@pytest.mark.parametrize("file", UNITS)
def test_a_unit_needs_no_server(file: str) -> None:
    advice = f"tests/{file} needs a server: what does so belongs into tests/integration"
    for node in ast.walk(ast.parse((TESTS / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert "valkey" not in {each.arg for each in node.args.args}, f"{advice}: {node.name}"
    names = set(imported(TESTS / file))
    assert not names & SERVERS, advice
    assert not any(name.startswith(SERVING) for name in names), advice
