"""The examples, run as their users run them: against ``pushsvc dev``."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.support.dev import Dev, dev
from tests.support.nodes import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


def ask(local: Dev, **wanted: Any) -> str:
    """A token."""
    return str(httpx.post(f"{local.admin_url}/dev/token", json=wanted).json()["token"])


def shown(local: Dev, name: str, *arguments: str, stdin: IO[str] | int | None = None) -> list[str]:
    """Run an example to its end; the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env=local.environ, stdin=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def seen_by(name: str, lines: list[str]) -> list[str]:
    """What stands on the screen of one user."""
    screens = [line.partition(" | ") for line in lines]
    return [text for who, _, text in screens if who.strip() == name]


# --- chat ----------------------------------------------------------------------------------------


def test_chat_shows_words_typing_receipts_and_who_is_here(local: Dev) -> None:
    lines = shown(local, "chat.py")
    anna, ben = seen_by("anna", lines), seen_by("ben", lines)
    words = ["ben: Hello Anna!", "anna: Hi Ben. See you at eight?", "ben: Yes! I have to run."]
    for screen in (anna, ben):
        assert [line for line in screen if line in words] == words
    assert anna[0] == "-- here: anna"
    assert ben[0] == "-- here: anna, ben"
    assert anna.index("-- ben joined") < anna.index("   (ben is typing)") < anna.index(words[0])
    assert "   (anna has read: Hello Anna!)" in ben
    assert "   (ben has read: Hi Ben. See you at eight?)" in anna
    assert anna[-1] == "-- ben left"
    assert not [line for line in anna if "anna is" in line or "anna has" in line]


class Person:
    """Someone at a terminal with the chat in it."""

    def __init__(self, local: Dev, name: str, directory: Path) -> None:
        self._screen = directory / f"{name}.txt"
        with self._screen.open("wb") as screen:
            self._process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / "chat.py"), "--user", name, "--room", "r1"],
                env=local.environ, stdin=subprocess.PIPE, stdout=screen, stderr=screen,
            )  # fmt: skip

    def types(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def sees(self, text: str) -> None:
        wait_until(lambda: text in self._screen.read_text(), text)

    @property
    def talk(self) -> list[str]:
        """What stands on the screen, but who came and went."""
        lines = (each.partition(" | ")[2].strip() for each in self._screen.read_text().splitlines())
        return [each for each in lines if not each.startswith(("--", "(carla has read"))]

    def leaves(self) -> int:
        self._process.communicate(timeout=10)
        return self._process.returncode


def test_two_people_chat_and_a_late_one_reads_what_was_said(local: Dev, tmp_path: Path) -> None:
    people = [Person(local, "anna", tmp_path)]
    try:
        anna = people[0]
        anna.sees("-- here: anna")
        people.append(ben := Person(local, "ben", tmp_path))
        anna.sees("-- ben joined")
        ben.types("")
        anna.sees("(ben is typing)")
        ben.types("hello")
        anna.sees("ben: hello")
        ben.sees("(anna has read: hello)")
        people.append(carla := Person(local, "carla", tmp_path))
        carla.sees("ben: hello")
        carla.sees("(anna has read: hello)")
        # That he was typing is forgotten with his words: what he types next is told again, once.
        ben.types("")
        ben.types("")
        ben.types("bye")
        anna.sees("ben: bye")
        assert anna.talk == [
            "(ben is typing)", "ben: hello", "(ben is typing)", "ben: bye",
        ]  # fmt: skip
        assert ben.leaves() == 0
        anna.sees("-- ben left")
    finally:
        codes = [person.leaves() for person in people]
    assert codes == [0, 0, 0]


def test_an_example_acks_what_comes_beside_its_topic(local: Dev, tmp_path: Path) -> None:
    backend = ask(local, user="backend", scopes=["push.publish"])
    dora = {"Authorization": f"Bearer {ask(local, user='dora')}"}

    def waiting() -> list[Any]:
        """What a device of hers would be sent if it came back now."""
        url = f"{local.url}/v1/poll?device=example&wait=0"
        messages: list[Any] = httpx.get(url, headers=dora).json()["messages"]
        return messages

    person = Person(local, "dora", tmp_path)
    try:
        person.sees("-- here: ")
        for to in ({"user": "dora"}, {"broadcast": True}):
            answer = httpx.post(
                f"{local.url}/v1/notifications", json={"to": to, "data": 1},
                headers={"Authorization": f"Bearer {backend}"},
            )  # fmt: skip
            assert answer.status_code == 202
        wait_until(lambda: waiting() == [], "both to be acknowledged")
    finally:
        assert person.leaves() == 0


def test_chat_takes_its_lines_from_a_file_too(local: Dev, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("hello\n")
    for path in (Path(os.devnull), tmp_path / "lines"):
        with path.open() as lines:
            shown(local, "chat.py", "--user", "zed", "--room", "r2", stdin=lines)
    assert "  zed | zed: hello" in shown(
        local, "chat.py", "--user", "zed", "--room", "r2", stdin=subprocess.DEVNULL
    )


# --- the others ----------------------------------------------------------------------------------


def test_document_is_the_same_for_all_in_the_end(local: Dev) -> None:
    lines = shown(local, "document.py")
    end = lines.index("In the end all have the same:")
    texts = [seen_by(name, lines[end:]) for name in ("anna", "ben", "carla")]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0][0].startswith("Shopping / - coffee / ")
    # The two edits of one line came in one order, for those who were there and those who were not.
    orders = [
        [text for text in seen_by(name, lines[:end]) if "replace line 1" in text]
        for name in ("anna", "ben", "carla")
    ]
    assert orders[0] == orders[1] == orders[2]
    assert len(orders[0]) == 2
    assert orders[0][1].rpartition(": ")[2] in texts[0][0]
    assert "(the cursor of ben: line 2)" in seen_by("anna", lines)


def test_game_brings_each_player_the_positions_of_the_others_20_times_a_second(local: Dev) -> None:
    lines = shown(local, "game.py", "--players", "4", "--seconds", "2")
    rates = [
        (float(match[1]), float(match[2]))
        for line in lines
        if (match := re.fullmatch(r"player-\w +([0-9.]+) +([0-9.]+)", line))
    ]
    assert len(rates) == 4
    for sent, received in rates:
        assert sent == 20
        assert 15 <= received <= 20  # what is late under load may be dropped
    field = "".join(lines[-12:])
    assert "@" in field


def test_ticker_tells_the_state_first_and_then_the_changes(local: Dev) -> None:
    lines = shown(local, "ticker.py")
    kinds = [line.split()[0] for line in lines if line.startswith("  ")]
    assert kinds == ["state"] * 4 + ["change"] * 12
    assert len({line.split()[1] for line in lines if line.startswith("  state")}) == 4
    assert lines[-1] == "The board shows what the exchange has."


def test_scores_reach_every_socket(local: Dev) -> None:
    lines = shown(local, "scores.py", "--sockets", "200")
    goals = [line for line in lines if " goal " in line]
    assert len(goals) == 9
    assert len([line for line in lines if " final " in line]) == 1
    assert all(re.search(r"p50 .* ms .*p90 .* ms .*p99 .* ms .*max .* ms", line) for line in goals)
    assert lines[-2].startswith("2000 deliveries, none lost")
    assert "this process took" in lines[-1]


def test_examples_that_run_at_once_leave_each_other_alone(local: Dev) -> None:
    with ThreadPoolExecutor() as pool:
        chat = pool.submit(shown, local, "chat.py")
        for name in ("ticker.py", "document.py"):
            pool.submit(shown, local, name).result()
        assert pool.submit(shown, local, "scores.py", "--sockets", "10").result()
        assert seen_by("anna", chat.result())[-1] == "-- ben left"


# --- inbox ---------------------------------------------------------------------------------------


def test_the_shop_gives_its_page_tokens_and_tells_of_each_order(local: Dev) -> None:
    shop = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "inbox" / "server.py")],
        env=local.environ | {"PORT": "0"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert shop.stdout is not None
        url = re.fullmatch(r"open (http://localhost:\d+)\n", shop.stdout.readline())[1]  # type: ignore[index]
        page = httpx.get(url).text
        assert f'src="{local.url}/inbox.js"' in page
        assert 'token-url="/push-token"' in page
        token = httpx.get(f"{url}/push-token").text
        for number in (17, 18):
            answer = httpx.post(f"{url}/orders")
            assert (answer.status_code, answer.headers["Location"]) == (303, "/")
            told = httpx.get(
                f"{local.url}/v1/users/demo/notifications",
                headers={"Authorization": f"Bearer {token}"},
            ).json()
            assert told["unread"] == number - 16
            newest = told["notifications"][0]["data"]
            assert newest["url"] == f"/orders/{number}"
            assert httpx.get(url + newest["url"]).status_code == 200
        assert httpx.get(f"{url}/elsewhere").status_code == 404
    finally:
        shop.send_signal(signal.SIGINT)
        _, errors = shop.communicate(timeout=20)
    assert (shop.returncode, errors) == (0, "")


# --- when something is wrong ---------------------------------------------------------------------


def failed(environ: dict[str, str], *command: str) -> str:
    """Run an example that cannot work; the one line that it says."""
    done = subprocess.run(
        command or [sys.executable, str(EXAMPLES / "chat.py")],
        env=environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_without_a_node_an_example_says_how_to_start_one(local: Dev) -> None:
    nowhere = "http://127.0.0.1:1"
    for name in ("PUSH_ADMIN_URL", "PUSH_URL"):
        line = failed(local.environ | {name: nowhere})
        assert "make run" in line
        assert f"cannot be reached at {name} {nowhere} " in line


def test_a_node_that_makes_no_tokens_is_told_by_its_answer(local: Dev) -> None:
    assert "/dev/token" in failed(local.environ | {"PUSH_ADMIN_URL": local.url})


def test_a_refused_connection_is_told_in_one_line(local: Dev) -> None:
    line = failed(local.environ | {"PUSH_URL": local.admin_url})
    assert "the node refused: 404" in line


def test_too_few_files_for_the_sockets_are_told_with_the_way_out(local: Dev) -> None:
    scores = f"ulimit -n 60; exec {sys.executable} {EXAMPLES / 'scores.py'} --sockets 200"
    assert "ulimit -n" in failed(local.environ, "bash", "-c", scores)


def test_no_sockets_are_too_few(local: Dev) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "scores.py"), "--sockets", "0"],
        env=local.environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--sockets" in done.stderr
    assert "Traceback" not in done.stderr


def test_each_example_is_listed_with_its_command() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/*.py")):
        if path.name != "common.py":
            assert f"examples/{path.relative_to(EXAMPLES)}" in readme
