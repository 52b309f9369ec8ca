"""The pods' network: a bridge whose own address is the node's, packet filter rules, and kernel settings."""

from __future__ import annotations

import json
from pathlib import Path

from .commands import run, succeeds
from .console import ClusterError
from .layout import BRIDGE, NODE_ADDRESS, POD_CIDR

CHAIN = "PGMQ-BUS"
# kube-proxy's and the kubelet's chains, and ours.
CHAIN_PREFIXES = ("KUBE-", CHAIN)
FAMILIES = ("iptables", "ip6tables")
REQUIRED_SETTINGS = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
CNI_RESULTS = Path("/var/lib/cni/results")
# What the kubelet (pkg/kubelet/cm, setupKernelTunables) and kube-proxy set by themselves.
SETTINGS_OF_DAEMONS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.ipv4.conf.all.route_localnet",
)


def _setting(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def kernel_settings() -> dict[str, str]:
    """Return the present values of all kernel settings that running a node changes."""
    names = (*REQUIRED_SETTINGS, *SETTINGS_OF_DAEMONS)
    return {name: _setting(name).read_text().strip() for name in names if _setting(name).exists()}


def restore_kernel_settings(before: dict[str, str]) -> None:
    """Set kernel settings back to what `kernel_settings` returned."""
    now = kernel_settings()
    for name, value in before.items():
        if now.get(name, value) != value:
            _setting(name).write_text(value)


def ensure() -> None:
    """Have the bridge with its address, the packet filter rules and the kernel settings.

    Raises:
        ClusterError: the kernel lacks what pods need.
    """
    if not _setting("net.bridge.bridge-nf-call-iptables").exists() and not succeeds(["modprobe", "br_netfilter"]):
        raise ClusterError("this kernel has no br_netfilter: pods could not reach each other through Services")
    for name, value in REQUIRED_SETTINGS.items():
        if _setting(name).read_text().strip() != value:
            _setting(name).write_text(value)
    if not succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    prefix = POD_CIDR.partition("/")[2]
    run(["ip", "address", "replace", f"{NODE_ADDRESS}/{prefix}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    # Pods reach the world under the machine's address, and each other whatever the machine forwards by default.
    nat = [f"-s {POD_CIDR} ! -d {POD_CIDR} -j MASQUERADE"]
    filters = [f"-s {POD_CIDR} -j ACCEPT", f"-d {POD_CIDR} -j ACCEPT"]
    for table, hook, rules in (("nat", "POSTROUTING", nat), ("filter", "FORWARD", filters)):
        # Naming the chain makes it, or empties it: either way it then holds just these rules.
        lines = [f"*{table}", f":{CHAIN} - [0:0]", *(f"-A {CHAIN} {rule}" for rule in rules), "COMMIT"]
        run(["iptables-restore", "--wait", "--noflush"], stdin="\n".join(lines) + "\n")
        if not succeeds(["iptables", "--wait", "-t", table, "-C", hook, "-j", CHAIN]):
            run(["iptables", "--wait", "-t", table, "-I", hook, "-j", CHAIN])


def has_foreign_rules() -> bool:
    """Return whether kube-proxy's rules are there; asked before ours runs, they are another cluster's."""
    return succeeds(["iptables", "--wait", "-t", "nat", "-L", "KUBE-SERVICES", "-n"])


def remove() -> None:
    """Remove the bridge and every packet filter rule that a node brings with it."""
    if succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "delete", BRIDGE])
    for family in FAMILIES:
        if script := removal(run([f"{family}-save"]), CHAIN_PREFIXES):
            run([f"{family}-restore", "--wait", "--noflush"], stdin=script)
    # libcni's memory of the interfaces it made; its place cannot be configured.
    for result in CNI_RESULTS.glob(f"{BRIDGE}-*"):
        sandbox = result.name.split("-")[1]
        for interface in (result, *CNI_RESULTS.glob(f"cni-loopback-{sandbox}-*")):
            interface.unlink(missing_ok=True)


def removal(rules: str, prefixes: tuple[str, ...]) -> str:
    """Return the input to `iptables-restore --noflush` that removes chains and all that refers to them.

    Args:
        rules: the output of `iptables-save`.
        prefixes: how the names of the chains to remove begin.
    """
    script: list[str] = []
    table: list[str] = []
    chains: list[str] = []
    for line in rules.splitlines():
        words = line.split()
        if line.startswith("*"):
            table, chains = [line], []
        elif line.startswith(":") and words[0][1:].startswith(prefixes):
            chains.append(words[0][1:])
        elif line.startswith("-A") and not words[1].startswith(prefixes) and _target(words).startswith(prefixes):
            table.append(f"-D{line[2:]}")
        elif line == "COMMIT" and (chains or len(table) > 1):
            # A chain can go once nothing refers to it: first empty them all.
            script += [*table, *(f"-F {c}" for c in chains), *(f"-X {c}" for c in chains), line]
    return "\n".join([*script, ""]) if script else ""


def _target(words: list[str]) -> str:
    for option in ("-j", "-g"):
        if option in words:
            return words[words.index(option) + 1]
    return ""


def cni_configuration(data: Path) -> str:
    """Return the CNI network list of the bridge.

    Args:
        data: where the addresses in use are kept.
    """
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,  # or a pod does not reach itself through its own Service
        "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "dataDir": str(data)},
    }
    return json.dumps({"cniVersion": "0.4.0", "name": BRIDGE, "plugins": [bridge]}, indent=2) + "\n"
