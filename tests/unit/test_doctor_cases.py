"""What the doctor finds, and the test that makes it happen: nothing that it can say is without one.

A test reproduces its case with the real thing, a real server, pooler, API server or operator, and looks for code,
object and remedy in what `busctl doctor` or `python -m bus_runtime.doctor` prints. Only what cannot be had is made up.
"""

import ast
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from error_codes import Codes

from bus_operator.doctor import channel, cluster_rounds, database, findings, pod, rounds, webhook
from bus_operator.doctor.pod import SETTLED, PodFacts
from bus_operator.errors import SpecError, TransientError
from bus_operator.obstacles import obstacles
from bus_operator.peer_view import PeerView
from bus_operator.pods import Pod
from bus_runtime import doctor

TESTS = Path(__file__).parents[1]

DATABASE = "database/test_busctl_doctor.py"
CLUSTER = "apiserver/test_busctl_doctor.py"
OPERATOR = "operator/test_busctl.py"
IN_A_POD = "runtime/test_runtime_doctor.py"
WITHOUT = "test_the_doctor_on_a_pod_without_a_binding_and_a_replaced_credential"
REFUSED = "test_the_doctor_on_what_the_operator_refuses"
HERE = "unit/test_doctor_cases.py"
UNIT = "unit/test_plan_installation.py"

CASES = {
    "the database is down": [
        ("ConnectionFailed", DATABASE, "test_a_server_that_is_down"),
        ("ConnectionFailed", CLUSTER, "test_a_database_that_nobody_reaches"),
        ("ConnectionFailed", IN_A_POD, "test_a_server_that_is_down"),
    ],
    "it refuses": [
        ("AuthenticationFailed", DATABASE, "test_a_server_that_lets_nobody_in_from_here"),
        ("ConnectionFailed", DATABASE, "test_a_server_that_is_starting_up"),
        ("ConnectionFailed", DATABASE, "test_a_server_that_is_shutting_down"),
        ("DatabaseReadOnly", DATABASE, "test_a_standby"),
    ],
    "a wrong password": [("AuthenticationFailed", DATABASE, "test_a_wrong_password")],
    "no rights": [("InsufficientPrivilege", DATABASE, "test_no_rights")],
    "out of connections": [
        ("ConnectionsExhausted", DATABASE, "test_no_connection_left"),
        ("ConnectionsExhausted", IN_A_POD, "test_no_connection_left"),
    ],
    "a server that is too old": [("UnsupportedServer", UNIT, "test_what_only_a_person_can_change")],
    "PGMQ is missing": [("PgmqMissing", DATABASE, "test_pgmq_is_gone")],
    "PGMQ is too old": [("PgmqTooOld", DATABASE, "test_pgmq_is_too_old")],
    "a schema that everybody may write to": [("PublicSchemaWritable", DATABASE, "test_a_public_schema_for_everybody")],
    "a pooler in transaction mode": [
        ("PoolerInTransactionMode", DATABASE, "test_a_pooler_before_the_administrator"),
        ("PoolerInTransactionMode", CLUSTER, "test_what_pods_connect_to_may_be_a_pooler"),
        ("PoolerInTransactionMode", IN_A_POD, "test_a_pooler_and_its_mode"),
    ],
    "a channel conflict": [("ChannelConflict", OPERATOR, REFUSED)],
    "a namespace that is not allowed": [("NamespaceNotAllowed", OPERATOR, REFUSED)],
    "the operator is down": [("OperatorDown", CLUSTER, "test_an_operator_that_is_down")],
    "the webhook cannot be reached": [
        ("WebhookUnreachable", CLUSTER, "test_the_webhook"),
        ("WebhookUnreachable", OPERATOR, WITHOUT),
        ("WebhookConfigurationNotFound", CLUSTER, "test_no_webhook"),
    ],
    "its certificate has expired": [
        ("CertificateExpired", CLUSTER, "test_the_webhook"),
        ("CertificateExpired", CLUSTER, "test_the_expired_certificate_of_a_service"),
    ],
    "a pod was not injected": [
        ("BindingMissing", OPERATOR, WITHOUT),
        ("BindingMissing", CLUSTER, "test_pods_that_a_channel_selects"),
        ("RuntimeNotInjected", CLUSTER, "test_pods"),
        ("PodNotRunning", CLUSTER, "test_pods_that_do_not_run"),
        ("NotJoined", CLUSTER, "test_a_pod_in_which_nobody_joins"),
        ("NotJoined", HERE, "test_a_pod_in_which_nobody_joins"),
    ],
    "its annotation names no channel": [
        ("ChannelNotFound", CLUSTER, "test_pods"),
        ("RequestInvalid", CLUSTER, "test_pods"),
        ("RequestInvalid", CLUSTER, "test_pods_that_ask_without_the_label"),
    ],
    "no route, as by a NetworkPolicy": [
        ("NoRoute", IN_A_POD, "test_packets_that_get_lost"),
        ("HostNotFound", IN_A_POD, "test_a_host_that_nobody_knows"),
        ("DoorbellUnheard", DATABASE, "test_doorbells_that_do_not_arrive"),
        ("DoorbellUnheard", IN_A_POD, "test_an_address_at_which_nobody_hears"),
    ],
    "a pod on a retired credential": [
        ("CredentialStillUsed", OPERATOR, WITHOUT),
        ("CredentialStillUsed", CLUSTER, "test_pods"),
        ("AuthenticationFailed", IN_A_POD, "test_a_credential_that_was_retired"),
    ],
    "a stalled peer": [("PeerStalled", DATABASE, "test_a_stalled_peer")],
    "a peer that ended without leaving": [
        ("PeerStalled", DATABASE, "test_a_peer_that_may_have_ended"),
        ("PeerSilent", DATABASE, "test_peers_that_ended_without_leaving"),
        ("PeerSilent", DATABASE, "test_a_former_process_of_a_pod"),
        ("PeerSilent", CLUSTER, "test_a_peer_whose_pod_is_gone"),
        ("NotJoined", HERE, "test_a_pod_in_which_nobody_joins"),
    ],
    "a backlog that grows": [("BacklogGrowing", DATABASE, "test_a_backlog_that_grows")],
    "nobody reads": [("NobodyReads", DATABASE, "test_nobody_reads")],
    "another version of the runtime": [("VersionSkew", DATABASE, "test_a_replaced_credential_and_another_release")],
    "another version of the schema": [
        ("SchemaTooNew", DATABASE, "test_another_releases_schema"),
        ("SchemaTooOld", DATABASE, "test_the_schema_of_a_former_operator"),
        ("NotInstalled", DATABASE, "test_nothing_is_installed"),
    ],
    "drift": [
        ("DriftFound", DATABASE, "test_changes_by_hand"),
        ("DriftRemains", DATABASE, "test_changes_by_hand_that_are_somebody_elses"),
    ],
}


@cache
def functions(path: str) -> dict[str, str]:
    """The tests of a file with their text, what they are parametrized by included."""
    text = (TESTS / path).read_text()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_case_has_a_test_that_looks_for_its_code(case: str) -> None:
    for code, path, name in CASES[case]:
        assert name in functions(path), f"{path} has no {name}"
        assert code in functions(path)[name], f"{path}::{name} does not look for {code}"


def test_whatever_it_can_find_is_a_case() -> None:
    said: set[str] = set()
    for module in (channel, cluster_rounds, database, findings, pod, rounds, webhook, doctor):
        walked = Codes(module, Path(str(module.__file__)).read_text())
        said |= walked.found
    said |= set(re.findall(r'reason="(\w+)"', Path(str(obstacles.__code__.co_filename)).read_text()))
    missing = said - {code for found in CASES.values() for code, _, _ in found}
    assert sorted(missing) == []
    assert len(said) > 20


def test_what_a_pods_service_account_may_not_see() -> None:
    """The operator's, above all: in its pod the whole command is run that reaches the databases."""
    refused = SpecError("deployments.apps is forbidden", reason="Forbidden")
    facts = webhook.InjectionFacts(refused, refused, "shop", refused, is_pod=True)
    (outcome,) = webhook.examine(facts)
    assert outcome.title == "operator and webhook"
    assert outcome.unseen is not None
    assert "run busctl doctor with your own kubeconfig" in outcome.unseen
    assert "forbidden" not in outcome.unseen
    # What else is in the way is said.
    lost = TransientError("the API server cannot answer now", reason="ApiUnavailable")
    first, second = webhook.examine(replace(facts, injected=lost))
    assert (first.unseen, second.unseen) == (outcome.unseen, str(lost))


def test_a_pod_in_which_nobody_joins() -> None:
    """Only a pod that has had time to: two minutes, which no test waits for."""
    created = datetime(2026, 1, 2, tzinfo=UTC)
    metadata = {
        "namespace": "shop",
        "name": "worker",
        "uid": "1",
        "creationTimestamp": created.isoformat(),
        "labels": {"pgmqbus.dev/inject": "true"},
        "annotations": {"pgmqbus.dev/channels": "orders", "pgmqbus.dev/injected": "orders"},
    }
    worker = Pod.from_body({"metadata": metadata}, lambda *_: ())

    def found(after: timedelta, state: str, *peers: PeerView) -> list[str]:
        facts = PodFacts(worker, state, {"orders"}, peers, created + after)
        return [
            f"{finding.code}: {finding.message}"
            for outcome in pod.CHECKS.examine(facts)
            for finding in outcome.findings
        ]

    (said,) = found(SETTLED + timedelta(seconds=1), "Running")
    assert said.startswith("NotJoined: nobody in pod shop/worker has joined 'orders'")
    assert "kubectl exec -n shop worker -- python -m bus_runtime.doctor" in said
    assert found(SETTLED, "Running") == found(SETTLED * 2, "Completed") == []

    peer = PeerView(
        channel="shop.orders", owner="shop/orders", host="worker", application=None, durable=None, runtime=None,
        is_foreign=False, generation=None, is_retired=True, wake="doorbell", is_deaf=False, behind=0,
        behind_seconds=None, last_seen=created, silent_seconds=1.0, joined_at=created, timeout_seconds=600.0,
        is_live=True, redelivered=0, lost=0,
    )  # fmt: skip
    assert found(SETTLED * 2, "Running", peer) == [
        "CredentialStillUsed: pod shop/worker, a peer of shop/orders, uses a credential that was withdrawn: restart it"
    ]
    # It was killed without leaving, and what was started in its place has not joined.
    (said,) = found(SETTLED * 2, "Running", replace(peer, silent_seconds=300.0))
    assert said.startswith("NotJoined: nobody in pod shop/worker is heard of any more in 'orders': does its program")
