"""What the chart runs and tells people to run does what it says, against real servers."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from pushsvc.server.embedded import EmbeddedServer, find_server
from tests.deploy import chart
from tests.deploy.chart import Values, ci_values, manifests
from tests.deploy.resources import LEAST, merged, secret_values
from tests.support.certificates import Authority
from tests.support.nodes import SECRET, Node, publisher_token, token, wait_until
from tests.support.ports import free_port
from tests.support.programs import need

CI = ci_values()


def run_test_pod(
    values: Values, environ: dict[str, str], patience: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the pod of ``helm test``, with some of its variables."""
    (pod,) = (m for m in manifests(values) if m["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    names = {item["name"] for item in container["env"]}
    assert set(environ) <= names
    given = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    (script,) = container["args"]
    assert "PATIENCE = 60.0" in script
    script = script.replace("PATIENCE = 60.0", f"PATIENCE = {patience}")
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"]} | given | environ,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def secret_file(directory: Path) -> str:
    path = directory / "jwt-secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


def test_helm_test_publishes_receives_and_acknowledges(node: Node, tmp_path: Path) -> None:
    environ = {"PUSH_URL": node.url, "ADMIN_URL": node.admin_url}
    run = run_test_pod(CI["default"], environ | {"JWT_SECRET_FILE": secret_file(tmp_path)})
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"{node.url} noted the acknowledgement: it works"
    assert node.metric("pushsvc_delivered_total") == 1
    assert node.metric("pushsvc_acks_total") == 1


def test_helm_test_takes_the_tokens_of_an_identity_provider(node: Node) -> None:
    node.publish("alice", "waits for another device")
    tokens = {"USER_TOKEN": token("alice"), "PUBLISHER_TOKEN": publisher_token()}
    run = run_test_pod(CI["jwks"], {"PUSH_URL": node.url, "ADMIN_URL": node.admin_url} | tokens)
    assert run.returncode == 0, run.stderr


def test_helm_test_fails_where_nothing_may_be_published(node: Node) -> None:
    tokens = {"USER_TOKEN": token("alice"), "PUBLISHER_TOKEN": token("nobody")}
    run = run_test_pod(CI["jwks"], {"PUSH_URL": node.url, "ADMIN_URL": node.admin_url} | tokens)
    assert run.returncode != 0
    assert "push.publish" in run.stderr


def test_helm_test_without_tokens_asks_whether_the_service_is_ready(
    node: Node,
) -> None:
    keys = {"existingSecret": "", "jwksUrl": "https://id.example.com/keys"}
    values = merged(LEAST, {"auth": {"jwt": keys}})
    run = run_test_pod(values, {"ADMIN_URL": node.admin_url})
    assert run.returncode == 0, run.stderr
    ready, rest = run.stdout.splitlines()
    assert ready == f"{node.admin_url}/readyz is ready"
    assert rest.startswith("Nothing was published: name a Secret")
    notes = chart.render(values)["NOTES.txt"]
    assert "helm test push --namespace team" in notes
    assert "tests.existingSecret" in notes


def test_helm_test_trusts_the_authority_of_the_certificate(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(tmp_path)
    node = Node(
        valkey.url, tmp_path, prefix=prefix, tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
    )  # fmt: skip
    with node:
        environ = {
            "PUSH_URL": node.url,
            "ADMIN_URL": node.admin_url,
            "JWT_SECRET_FILE": secret_file(tmp_path),
            "CA_FILE": str(authority.file),
        }
        run = run_test_pod(CI["cluster-tls-acl"], environ)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("trouble", ["authority", "silence"])
def test_helm_test_says_in_a_sentence_what_is_wrong(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, trouble: str
) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "another").mkdir()
    another = Authority(tmp_path / "another")
    certificate, key = authority.issue(tmp_path)
    node = Node(
        valkey.url, tmp_path, prefix=prefix, tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
    )  # fmt: skip
    with node, socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {
            "PUSH_URL": node.url,
            "ADMIN_URL": node.admin_url,
            "JWT_SECRET_FILE": secret_file(tmp_path),
            "CA_FILE": str(another.file),
        }
        if trouble == "silence":
            environ["PUSH_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        run = run_test_pod(CI["cluster-tls-acl"], environ, patience=2)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    expected = {"authority": "is not trusted", "silence": "not done within"}
    assert run.stderr.startswith(environ["PUSH_URL"]), run.stderr
    assert expected[trouble] in run.stderr, run.stderr


def test_the_commands_of_the_notes_work(node: Node) -> None:
    """Those without kubectl as they are, those in a pod with the command of this environment."""
    notes = chart.render(CI["default"])["NOTES.txt"]
    _, _, by_hand = notes.partition("and in another one:\n")
    commands, _, _ = by_hand.partition("\nConsole:")
    pod = "kubectl --namespace team exec deployment/push-pushsvc -- pushsvc"
    assert commands.count(pod) == 2
    script = commands.replace(pod, f"{sys.executable} -m pushsvc")
    run = subprocess.run(
        ["bash", "-euc", script.replace("http://127.0.0.1:8080", node.url)],
        env={"PATH": os.environ["PATH"], "PUSHSVC_JWT_SECRET": SECRET},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert '"durability"' in run.stdout
    assert '"text":"hello"' in run.stdout.replace(" ", "")


@contextlib.contextmanager
def trial_valkey(directory: Path, values: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """The container of the trial Valkey as a process: its port and its password."""
    resources = manifests(values)
    (workload,) = (m for m in resources if m["kind"] == "StatefulSet")
    name = workload["metadata"]["name"]
    (config,) = (m for m in resources if (m["kind"], m["metadata"]["name"]) == ("ConfigMap", name))
    (secret,) = (m for m in resources if (m["kind"], m["metadata"]["name"]) == ("Secret", name))
    password = secret_values(secret)["redis-password"]
    mounts = {"/etc/valkey/config": config["data"], "/etc/valkey/auth": secret_values(secret)}
    for path, files in mounts.items():
        for file, text in files.items():
            target = directory / path.lstrip("/") / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace("dir /data", f"dir {directory}/data"))
    for path in ("tmp", "data", "bin"):
        (directory / path).mkdir()
    (directory / "bin" / "valkey-server").symlink_to(find_server())
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    script = re.sub("/(etc/valkey|tmp)/", rf"{directory}/\1/", script)
    port = free_port()
    script = script.rstrip() + f" --port {port} --bind 127.0.0.1"
    environ = {"PATH": f"{directory}/bin:{os.environ['PATH']}"}
    command = [*container["command"], script]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process,
    ):
        try:
            yield port, password
        finally:
            process.terminate()
            ended = process.wait(30)
    assert ended == 0, (directory / "log").read_text()


@pytest.mark.parametrize("form", ["default", "sockets"])
def test_the_trial_valkey_starts_with_its_password_and_keeps_what_it_is_told(
    form: str, tmp_path: Path
) -> None:
    with trial_valkey(tmp_path, CI[form]) as (port, password):
        client = redis.Redis(port=port, password=password, decode_responses=True)

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        wait_until(answers, "Valkey to answer")
        options: Any = client.config_get("*")
        wanted = {
            "appendonly": "yes",
            "maxmemory": str(512 * 1024 * 1024),
            "maxmemory-policy": "noeviction",
            "save": "",
            "stream-node-max-bytes": "512",
        }
        assert {name: options[name] for name in wanted} == wanted
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        client.close()
    mode = (tmp_path / "tmp" / "valkey.conf").stat().st_mode
    assert mode & 0o077 == 0, "others can read the password"
    shutil.rmtree(tmp_path / "data")


def test_the_trial_valkey_is_not_killed_because_its_secret_changed(tmp_path: Path) -> None:
    cli = shutil.which("valkey-cli") or need("redis-cli")
    (workload,) = (m for m in manifests(CI["default"]) if m["kind"] == "StatefulSet")
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    kinds = ("startupProbe", "livenessProbe", "readinessProbe")
    commands = {json.dumps(container[kind]["exec"]["command"]) for kind in kinds}
    (*shell, script) = json.loads(commands.pop())
    assert commands == set()
    secret = tmp_path / "etc" / "valkey" / "auth" / "redis-password"
    script = script.replace("/etc/valkey/auth/redis-password", str(secret))

    def alive(port: int) -> bool:
        command = [*shell, script.replace("valkey-cli", f"{cli} -p {port}")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with trial_valkey(tmp_path, CI["default"]) as (port, _):
        wait_until(lambda: alive(port), "the probe to be content")
        secret.write_text("another")
        assert alive(port)
    assert not alive(port)


def test_a_node_runs_with_the_settings_of_the_chart(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    """The ConfigMap's own values, but for the addresses and the files of this machine."""
    resources = manifests(CI["external-redis"])
    (config,) = (m for m in resources if m["kind"] == "ConfigMap")
    others = {
        name.removeprefix("PUSHSVC_").lower(): value
        for name, value in config["data"].items()
        if not name.endswith(("_FILE", "_PORT", "_URL", "_ISSUER", "_ALGORITHMS"))
        and not name.startswith("PUSHSVC_PUSH_")  # which go with the files of keys
    }
    assert {"mailbox_max", "max_body_bytes", "allowed_origins", "drain_seconds"} <= set(others)
    others |= {"drain_seconds": "0.5", "port": "0"}
    with Node(valkey.url, tmp_path, prefix=prefix, **others) as node:
        node.publish("alice", "hello")


def test_the_plain_manifests_name_the_secret_that_their_readme_makes() -> None:
    readme = (chart.MANIFESTS / "README.md").read_text()
    made = set()
    for text in chart.plain_manifests().values():
        for resource in yaml.safe_load_all(text):
            if resource["kind"] == "Deployment":
                pod = resource["spec"]["template"]["spec"]
                for item in pod["containers"][0]["env"]:
                    made.add(item["valueFrom"]["secretKeyRef"]["key"])
                for volume in pod["volumes"]:
                    made |= {item["key"] for item in volume.get("secret", {}).get("items", [])}
    assert made == {"redis-url", "jwt-secret"}
    for key in made:
        assert f"--from-literal={key}=" in readme
