"""The `restricted` Pod Security Standard, as Kubernetes documents it, baseline included."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What the profile forbids in a pod's spec."""
    context = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is {kind}"
    yield from _shared(context)
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    kinds = ("containers", "initContainers", "ephemeralContainers")
    for container in (each for kind in kinds for each in pod.get(kind, [])):
        for violation in (*_forbidden(container), *_missing(container, context)):
            yield f"{container['name']}: {violation}"


def _shared(context: dict[str, Any]) -> Iterator[str]:
    """What pods and containers both can say."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if set(context.get("seLinuxOptions", {})) & {"user", "role"}:
        yield "seLinuxOptions"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "appArmorProfile"


def _forbidden(container: dict[str, Any]) -> Iterator[str]:
    """What a container has and must not."""
    context = container.get("securityContext", {})
    yield from _shared(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    if set(context.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield "hostPort"
    probes = [container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness")]
    for hook in (*probes, *container.get("lifecycle", {}).values()):
        if any(hook.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "host of a probe or a hook"


def _missing(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    """What a container must say, or its pod for it."""
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "runAsNonRoot is not true"
    if context.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield "no seccompProfile"
    if "ALL" not in context.get("capabilities", {}).get("drop", []):
        yield "capabilities are not dropped"
