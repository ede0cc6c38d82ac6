"""docs/guides, done as they say: their programs, their files, their figures."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import httpx
import jwt
import pytest

from pushsvc.auth.issuer_table import parse
from pushsvc.auth.tokens import mint
from pushsvc.server.embedded import EmbeddedServer
from tests.support import js
from tests.support.documents import ROOT, program, table
from tests.support.nodes import SECRET, Node, publisher_token, token, wait_until
from tests.support.ports import free_port
from tests.support.programs import need

BIN = Path(sys.executable).parent
LIMITS = (ROOT / "docs" / "guides" / "limits.md").read_text()


def guide(page: str, name: str) -> str:
    """A program of a guide."""
    return program(f"docs/guides/{page}.md", name)


def environ(node: Node, user: str, **claims: Any) -> dict[str, str]:
    """The variables that programs of the guides read."""
    return os.environ | {
        "PUSH_URL": node.url,
        "USER_TOKEN": token(user, **claims),
        "PUBLISHER_TOKEN": publisher_token(),
    }


def shell(text: str, environ: dict[str, str]) -> str:
    """The output of lines that are pasted into a terminal."""
    need("curl")
    done = subprocess.run(
        ["bash", "-ec", text], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(node: Node, path: str, auth: str) -> httpx.Response:
    """The answer to a GET request with a token."""
    headers = {"Authorization": f"Bearer {auth}"}
    return httpx.get(f"{node.url}{path}", headers=headers, timeout=10)


def kept(node: Node, user: str) -> list[dict[str, Any]]:
    """What the mailbox holds, newest first."""
    answer = asked(node, f"/v1/user/notifications?user={user}", publisher_token())
    listed: list[dict[str, Any]] = answer.json()["notifications"]
    return listed


def take(node: Node, user: str, device: str) -> str:
    """Be sent what waits for a device, and acknowledge it; the newest id."""
    auth = token(user)
    messages = asked(node, f"/v1/poll?device={device}&wait=0", auth).json()["messages"]
    newest = str(messages[-1]["id"])
    headers = {"Authorization": f"Bearer {auth}"}
    answer = node.post("/v1/ack", {"device": device, "id": newest}, headers=headers)
    assert answer.json() == {"acked": newest}
    return newest


class Running:
    """A program, from the start to the end of the block."""

    def __init__(self, command: list[str], directory: Path, environ: dict[str, str]) -> None:
        self._command = command
        self._directory = directory
        self._environ = environ
        self._output = directory / "output.txt"

    def __enter__(self) -> Self:
        with self._output.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._environ,
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)  # the command `node` starts another
        self._process.communicate(timeout=30)

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def lines(self) -> list[str]:
        """What it has printed so far."""
        text = self._output.read_text()
        assert self._process.poll() is None, text
        return text[: text.rfind("\n") + 1].splitlines()

    def prints(self, wanted: str) -> None:
        wait_until(lambda: wanted in self.lines(), wanted)


class Page:
    """A module of a guide and the script of a page that uses it, in Node.js.

    Args:
        directory: for its files.
        guide: its text.
        script: it may use ``guide``, ``url``, ``token``, ``connect`` and ``show``.
        environ: the variables.
    """

    def __init__(self, directory: Path, guide: str, script: str, environ: dict[str, str]) -> None:
        (directory / "node_modules").mkdir(parents=True)
        (directory / "node_modules" / "pushsvc").symlink_to(js.FOLDER)
        assert js.built().is_file()
        (directory / "guide.mjs").write_text(guide)
        (directory / "page.mjs").write_text(
            'import { createInterface } from "node:readline";\n'
            'import { connect } from "pushsvc";\n'
            'import * as guide from "./guide.mjs";\n'
            "const { PUSH_URL: url, USER_TOKEN: token } = process.env;\n"
            "const show = (value) => console.log(JSON.stringify(value));\n"
            f"{script}\n"
            "for await (const line of createInterface({ input: process.stdin }))\n"
            "  await eval(`(async () => { ${line} })()`);\n"
        )
        self._running = Running([js.NODE, "page.mjs"], directory, environ)

    def __enter__(self) -> Self:
        self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__()

    def does(self, script: str) -> None:
        """Have it do something, as when its user clicks."""
        self._running.stdin.write(f"{script}\n".encode())
        self._running.stdin.flush()

    def shown(self) -> list[Any]:
        """What it has shown so far."""
        return [json.loads(line) for line in self._running.lines()]

    def has_shown(self, wanted: Any) -> None:
        """Wait until it has shown this."""
        wait_until(lambda: wanted in self.shown(), f"{wanted} to be shown")

    def shows(self, wanted: Any) -> None:
        """Wait until this is what it shows."""
        wait_until(lambda: self.shown()[-1:] == [wanted], f"{wanted} to be shown")


# --- history -------------------------------------------------------------------------------------


def test_a_page_shows_the_mailbox_and_then_what_comes_each_once(
    node: Node, user: str, tmp_path: Path
) -> None:
    notes = [{"to": {"user": user}, "data": n} for n in range(60)]
    node.post("/v1/notifications/batch", {"notifications": notes})
    take(node, user, "another")  # so that a device that is new begins behind all of them
    script = (
        "const draw = (notes) => show(notes.map(({ data }) => data));\n"
        "const { older } = await guide.inbox({ url, token, draw });"
    )
    with Page(
        tmp_path / "page", guide("history", "history.mjs"), script, environ(node, user)
    ) as page:
        newest_first = list(range(59, -1, -1))
        page.shows(newest_first[:50])
        node.publish(user, 60)
        page.shows([60, *newest_first[:50]])
        page.does("show({ more: await older() })")
        page.shows({"more": False})
        assert page.shown()[-2] == [60, *newest_first]


# --- typing --------------------------------------------------------------------------------------


def test_typing_is_told_once_and_ends_with_the_words_with_leaving_and_with_silence(
    node: Node, user: str, tmp_path: Path
) -> None:
    text = guide("typing", "typing.mjs")
    room = f"chat.{user}"
    topics = {"subscribe": ["chat.*"], "publish": ["chat.*"]}
    script = (
        f'const push = connect({{ url, token, topics: ["{room}"] }});\n'
        'push.on("notification", ({ event, from }) => show([event, from]));\n'
        f'const who = guide.typing(push, "{room}", process.env.ME, show);\n'
        f'await push.presence("{room}"); show("here");'
    )

    def open_page(name: str, text: str) -> Page:
        variables = environ(node, name, topics=topics) | {"ME": name}
        return Page(tmp_path / name, text, script, variables)

    with open_page("ann", text) as ann:
        ann.shows("here")
        with open_page("ben", text) as ben:
            ben.shows("here")
            ben.does("who.key(); who.key(); who.key()")
            ann.shows(["ben"])
            ben.does(f'await push.publish("{room}", "hi", {{ event: "said" }}); who.sent()')
            ann.shows([])
            ben.does("who.key()")
            ann.shows(["ben"])
        ann.shows([])
        told = [each for each in ann.shown() if each == ["typing", "ben"]]
        assert len(told) == 2
        assert not [each for each in ann.shown() if "ann" in each]
    assert "FORGET = 5000" in text
    with open_page("cid", text.replace("FORGET = 5000", "FORGET = 300")) as cid:
        cid.shows("here")
        sign = {"to": {"topic": room}, "event": "typing", "ephemeral": True, "data": None}
        dan = {"Authorization": f"Bearer {token('dan', topics=topics)}"}
        node.post("/v1/notifications", sign, headers=dan)
        cid.shows([])
        assert ["dan"] in cid.shown()


# --- devices -------------------------------------------------------------------------------------


def test_what_is_read_on_one_device_is_read_on_all(node: Node, user: str, tmp_path: Path) -> None:
    variables = environ(node, user)
    script = (
        "const options = { url, token, device: process.env.DEVICE };\n"
        "const draw = (notes) => show(notes.map(({ data }) => data));\n"
        "const { push, markRead } = guide.unreadOf({ ...options, draw });\n"
        'push.on("state", ({ status }) => status === "connected" && show("here"));'
    )

    def device(name: str, turn: str = "") -> Page:
        text = guide("devices", "devices.mjs")
        return Page(tmp_path / f"{name}{turn}", text, script, variables | {"DEVICE": name})

    with device("phone") as phone:
        with device("laptop") as laptop:
            for each in (phone, laptop):  # a device that is new begins behind what is acknowledged
                each.has_shown("here")
            first, second, _ = (node.publish(user, n) for n in range(3))
            for each in (phone, laptop):
                each.shows([0, 1, 2])
            phone.does(f'await markRead("{second}")')
            for each in (phone, laptop):
                each.shows([2])
            laptop.does(f'await markRead("{first}")')  # what is read stays read
            node.publish(user, 3)
            for each in (phone, laptop):
                each.shows([2, 3])
        fourth = node.publish(user, 4)
        phone.shows([2, 3, 4])
        phone.does(f'await markRead("{fourth}")')
        phone.shows([])
        node.publish(user, 5)
        with device("laptop", "-again") as laptop:
            laptop.shows([5])
        with device("tablet") as tablet:  # begins behind what the others have acknowledged
            tablet.shows([5])


def test_a_call_is_withdrawn_from_the_devices_that_did_not_take_it(node: Node) -> None:
    asked(node, "/v1/poll?device=laptop&wait=0", token("demo"))
    answer = json.loads(shell(guide("devices", "any.sh"), environ(node, "demo")))
    assert take(node, "demo", "phone") == answer["id"]
    laptop = asked(node, "/v1/poll?device=laptop&wait=0", token("demo")).json()["messages"]
    assert [each["type"] for each in laptop if each.get("id") == answer["id"]] == ["withdrawn"]


def test_of_a_badge_the_latest_is_kept(node: Node) -> None:
    for _ in range(3):
        answer = json.loads(shell(guide("devices", "badge.sh"), environ(node, "demo")))
    badges = [note for note in kept(node, "demo") if note.get("event") == "badge"]
    assert [(note["id"], note["data"]) for note in badges] == [(answer["id"], 7)]


def test_what_is_for_one_device_waits_for_it_and_is_no_other_devices(node: Node) -> None:
    answer = json.loads(shell(guide("devices", "phone.sh"), environ(node, "demo")))
    tablet = asked(node, "/v1/poll?device=tablet&wait=0", token("demo")).json()["messages"]
    assert answer["id"] not in [each.get("id") for each in tablet]
    assert take(node, "demo", "phone") == answer["id"]


# --- away ----------------------------------------------------------------------------------------


def test_who_was_away_for_longer_than_the_retention_is_told_of_the_gap(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, retention_seconds=3) as node:
        held = node.publish("ann", "before")
        assert take(node, "ann", "tablet") == held
        node.publish("ann", "in between")
        wait_until(lambda: not kept(node, "ann"), "it to be gone")
        node.publish("ann", "lately")
        (tmp_path / "away.py").write_text(guide("away", "away.py"))
        command = [sys.executable, "-u", "-W", "error", "away.py"]
        with Running(command, tmp_path, environ(node, "ann")) as program:
            program.prints("lately")
            assert program.lines() == [
                f"asking my own backend for what came after {held}", "lately",
            ]  # fmt: skip


# --- 202 -----------------------------------------------------------------------------------------


def test_a_publish_that_is_repeated_with_its_key_is_one_notification(node: Node) -> None:
    printed = shell(guide("accepted", "twice.sh"), environ(node, "demo"))
    first, second = re.findall(r'"id":"(\d+-\d+)"', printed)
    assert first == second
    assert [note["id"] for note in kept(node, "demo") if note["data"] == {"order": 17}] == [first]


# --- later ---------------------------------------------------------------------------------------


def test_what_is_published_for_later_waits_and_is_taken_back(node: Node, tmp_path: Path) -> None:
    variables = environ(node, "demo") | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    program = tmp_path / "later.py"
    program.write_text(guide("scheduling", "later.py"))
    printed = shell(f"python -W error {program}", variables)
    assert printed.startswith("waits as s-")
    assert "cancelled=True" in printed
    command = guide("scheduling", "later.sh")
    waiting = json.loads(shell(command, variables))["id"]
    told = shell(guide("scheduling", "back.sh"), variables | {"WAITING": waiting})
    assert json.loads(told) == {"id": waiting, "acked": [], "cancelled": True}
    waiting = json.loads(shell(command, variables))["id"]
    told = shell('pushsvc recall "$WAITING" --user demo', variables | {"WAITING": waiting})
    assert json.loads(told) == {"id": waiting, "acked": [], "cancelled": True}
    assert "+10m" in command
    shell(command.replace("+10m", "+1s"), variables)
    text = {"text": "Your table is free"}
    wait_until(lambda: text in [each["data"] for each in kept(node, "demo")], "it to be out")


# --- secrets and tenants -------------------------------------------------------------------------


def test_tokens_of_the_old_secret_are_good_until_it_is_taken_out(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    old, new = "old" * 12, "new" * 12
    (tmp_path / "old.secret").write_text(f"{old}\n")
    (tmp_path / "new.secret").write_text(f"{new}\n")
    text = guide("secrets", "issuers.toml")
    path = tmp_path / "issuers.toml"
    path.write_text(text)

    def status(secret: str) -> int:
        scopes = ["push.publish"]  # which may ask as often as it likes
        auth = mint(secret=secret, user="shop", audience="pushsvc", scopes=scopes, ttl=600)
        return asked(node, "/v1/user/presence?user=ann", auth).status_code

    with Node(valkey.url, tmp_path, prefix=prefix, jwt_secret=None, auth_file=path) as node:
        assert (status(old), status(new)) == (200, 200)
        assert ', "old.secret"' in text
        path.write_text(text.replace(', "old.secret"', ""))
        wait_until(lambda: status(old) == 401, "the old secret to be refused")
        assert status(new) == 200
        assert "the file of issuers was read again" in node.log()


def test_each_tenant_has_an_issuer_and_a_namespace() -> None:
    entries = parse(guide("tenants", "tenants.toml").encode())
    assert {(each.rules.issuer, each.rules.namespace) for each in entries} == {
        ("https://acme.example", "acme"),
        ("https://globex.example", "globex"),
    }


# --- proxies -------------------------------------------------------------------------------------


def test_the_line_that_asks_whether_sockets_get_through_says_101(node: Node) -> None:
    status = shell(guide("proxies", "upgrade.sh"), environ(node, "demo"))
    assert status.startswith("HTTP/1.1 101 ")


def proxied(proxy: str, node: Node, port: int, directory: Path) -> list[str]:
    """The command of a proxy with the guide's configuration, before one node."""
    name = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[proxy]
    text = guide("proxies", name)
    for shown, here in (
        ("10.0.0.11:8080", f"127.0.0.1:{node.port}"),
        ("10.0.0.12:8080", f"127.0.0.1:{node.port}"),
        ("port 9090", f"port {node.admin_port}"),
        ("bind :80", f"bind 127.0.0.1:{port}"),
        ("listen 80", f"listen 127.0.0.1:{port}"),
    ):
        text = text.replace(shown, here)
    path = directory / name
    if proxy == "haproxy":
        path.write_text(text)
        return [need("haproxy"), "-db", "-f", str(path)]
    path.write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{text}}}\n"
    )
    return [need("nginx"), "-p", str(directory), "-c", str(path), "-e", "stderr"]


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_all_ways_to_receive_get_through_the_proxies_that_are_shown(
    node: Node, tmp_path: Path, proxy: str
) -> None:
    port = free_port()
    command = proxied(proxy, node, port, tmp_path)
    url = f"http://127.0.0.1:{port}"
    variables = environ(node, "a/b") | {"PUSH_URL": url}

    def passes() -> bool:
        try:
            return httpx.get(f"{url}/openapi.json", timeout=5).is_success
        except httpx.TransportError:
            return False

    with Running(command, tmp_path, variables):
        wait_until(passes, f"{proxy} to pass a request on")
        assert shell(guide("proxies", "upgrade.sh"), variables).startswith("HTTP/1.1 101 ")
        for transport in ("websocket", "sse", "poll"):
            script = (
                f'const push = connect({{ url, token, transports: ["{transport}"] }});\n'
                'push.on("state", ({ status }) => status === "connected" && show("here"));\n'
                'push.on("notification", (note) => show([note.data, push.state.transport]));'
            )
            with Page(tmp_path / transport, "", script, variables) as page:
                page.has_shown("here")
                node.publish("a/b", transport)
                page.shows([transport, transport])
        path = f"{url}/v1/users/a%2Fb/presence"
        headers = {"Authorization": f"Bearer {publisher_token()}"}
        assert httpx.get(path, headers=headers, timeout=10).json()["user"] == "a/b"


# --- limits --------------------------------------------------------------------------------------


def posted(node: Node, key: str | None = None, **fields: Any) -> httpx.Response:
    """The answer to a publish."""
    headers = {} if key is None else {"Idempotency-Key": f'"{key}"'}
    return node.post("/v1/notifications", {**NOTE, **fields}, headers=headers)


def polled(node: Node, query: str, **claims: Any) -> httpx.Response:
    """The answer to a poll."""
    return asked(node, f"/v1/poll?wait=0{query}", token("u", **claims))


def deep(levels: int) -> str:
    """A publish whose data is nested."""
    return '{"to":{"user":"u"},"data":' + "[" * levels + "]" * levels + "}"


def opening(patterns: list[str]) -> str:
    """A token with these topics, which nobody has looked at."""
    claims = {"sub": "u", "aud": "pushsvc", "exp": 4e9, "topics": {"subscribe": patterns}}
    return jwt.encode(claims, SECRET)


NOTE = {"to": {"user": "u"}, "data": 1}
JSON = {"Content-Type": "application/json"}
REQUESTS: dict[str, Callable[[Node, int], httpx.Response]] = {
    "bytes of a user id, a device, a topic": lambda node, n: posted(node, to={"user": "u" * n}),
    "characters of an event, a collapse key": lambda node, n: posted(node, event="e" * n),
    "levels in `data`": lambda node, n: node.post(
        "/v1/notifications", content=deep(n), headers=JSON
    ),
    "users of one publish": lambda node, n: posted(
        node, to={"users": [f"u{each}" for each in range(n)]}
    ),
    "notifications in a batch": lambda node, n: node.post(
        "/v1/notifications/batch", {"notifications": [NOTE] * n}
    ),
    "characters of an idempotency key": lambda node, n: posted(node, key="k" * n),
    "topics of a stream or a poll": lambda node, n: polled(
        node, "".join(f"&topic=t{each}" for each in range(n)), topics={"subscribe": ["**"]}
    ),
    "patterns of topics in a token": lambda node, n: asked(
        node, "/v1/poll?wait=0", opening([f"t{each}" for each in range(n)])
    ),
    "bytes of a token": lambda node, n: polled(node, "", further={"more": "m" * n}),
    "notifications on a page of the list": lambda node, n: asked(
        node, f"/v1/user/notifications?user=u&limit={n}", token("u")
    ),
    "notifications that one change of what was read names": lambda node, n: node.post(
        "/v1/user/read?user=u", {"ids": ["1764000000123-0"] * n}
    ),
}
"""A request that has so many of what is limited."""
REFUSED = {
    what: (int(limit), told)
    for what, limit, told in table(LIMITS, "## What cannot be set")
    if what in REQUESTS
}
assert REFUSED.keys() == REQUESTS.keys()


@pytest.mark.parametrize("what", REFUSED)
def test_one_beyond_a_limit_is_refused_as_the_guide_says(node: Node, what: str) -> None:
    limit, told = REFUSED[what]
    answer = REQUESTS[what](node, limit + 1)
    code = answer.json()["type"].rpartition(":")[2]
    assert f"{answer.status_code} `{code}`" == told, answer.text
    if "bytes of a token" not in what:
        assert REQUESTS[what](node, limit).is_success
