"""The recipes of docs/guides/frameworks.md, each in its framework as it stands there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pushsvc.client import Publisher
from tests.support.documents import program
from tests.support.nodes import SECRET, Node, publisher_token, wait_until

GUIDE = "docs/guides/frameworks.md"


def run(node: Node, directory: Path, names: list[str], test: str, **more: str) -> str:
    """Run a program beside those of the guide; what it printed."""
    for name in names:
        (directory / name).write_text(program(GUIDE, name))
    (directory / "program.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=directory, env=environ(node, **more),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def environ(node: Node, **more: str) -> dict[str, str]:
    own = {"PUSH_URL": node.url, "PUBLISHER_TOKEN": publisher_token()}
    return {name: value for name, value in os.environ.items() if "PUSH" not in name} | own | more


def kept(node: Node, user: str) -> list[tuple[str | None, Any]]:
    with Publisher(node.url, token=publisher_token()) as publisher:
        return [(each.event, each.data) for each in publisher.history(user)]


def test_fastapi_tells_once_however_often_it_is_asked(
    node: Node, user: str, tmp_path: Path
) -> None:
    test = f"""
from fastapi.testclient import TestClient
from fastapi_app import app

with TestClient(app) as client:
    answers = [client.post("/orders/17/ship", params={{"user": "{user}"}}) for _ in "12"]
print(answers[0].text, len({{answer.json()["id"] for answer in answers}}))
"""
    assert run(node, tmp_path, ["fastapi_app.py"], test).endswith(" 1\n")
    assert kept(node, user) == [("order.shipped", {"order": 17})]


def test_flask_publishes_and_answers_without_the_service(
    node: Node, user: str, tmp_path: Path
) -> None:
    test = f"""
import flask_app
from pushsvc.client import Publisher

client = flask_app.app.test_client()
print(client.post("/orders/18/ship/{user}").json["told"])
flask_app.publisher = Publisher("http://127.0.0.1:1", token="t", deadline=0.2)
print(client.post("/orders/19/ship/{user}").json["told"])
"""
    assert run(node, tmp_path, ["flask_app.py"], test) == "True\nFalse\n"
    assert kept(node, user) == [("order.shipped", {"order": 18})]


def test_django_tells_what_was_committed_and_nothing_that_was_rolled_back(
    node: Node, user: str, tmp_path: Path
) -> None:
    test = f"""
import os

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}},
    PUSH_URL=os.environ["PUSH_URL"],
    PUBLISHER_TOKEN=os.environ["PUBLISHER_TOKEN"],
    ROOT_URLCONF="__main__",
)
django.setup()

from django.db import transaction
from django.test import Client
from django.urls import path
from orders import ship


@transaction.atomic
def fail(request, order):
    ship(request, order)
    raise ValueError("all is rolled back")


urlpatterns = [path("ship/<int:order>", ship), path("fail/<int:order>", fail)]

if __name__ == "__main__":
    client = Client(raise_request_exception=False)
    print(client.get("/fail/20", {{"user": "{user}"}}).status_code)
    print(client.get("/ship/21", {{"user": "{user}"}}).status_code)
    import push

    push.publisher.close()
    print(client.get("/ship/22", {{"user": "{user}"}}).status_code)
"""
    assert run(node, tmp_path, ["push.py", "orders.py"], test) == "500\n200\n200\n"
    assert kept(node, user) == [("order.shipped", {"order": 21})]


def test_a_prefork_worker_of_celery_publishes_with_what_was_made_before_the_fork(
    node: Node, user: str, tmp_path: Path
) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "config.py").write_text(
        f"broker_transport_options = {{'data_folder_in': {str(tmp_path / 'queue')!r}, "
        f"'data_folder_out': {str(tmp_path / 'queue')!r}}}\n"
    )
    (tmp_path / "worker.py").write_text("from tasks import app\napp.config_from_object('config')\n")
    test = f"""
from worker import app
from tasks import tell_shipped

for order in (23, 24, 24, 25):
    tell_shipped.delay("{user}", order)
"""
    broker = {"BROKER_URL": "filesystem://"}
    run(node, tmp_path, ["tasks.py"], test, **broker)
    command = [
        sys.executable, "-m", "celery", "-A", "worker", "worker", "--pool", "prefork",
        "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env=environ(node, **broker), stdout=output, stderr=output
        )
    try:
        wait_until(lambda: len(kept(node, user)) == 3, f"three of them: {log}")
        orders = sorted(data["order"] for _, data in kept(node, user))
        assert orders == [23, 24, 25]
    finally:
        worker.terminate()
        worker.wait(30)
    assert "Traceback" not in log.read_text()


def test_a_token_may_be_minted_when_it_is_needed(node: Node, tmp_path: Path) -> None:
    test = program("docs/python.md", "renewing")
    assert "-" in run(node, tmp_path, [], test, PUSHSVC_JWT_SECRET=SECRET)
