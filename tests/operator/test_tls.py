"""Who the server is: operator, busctl and pods verify it by the authority that the BusDatabase names, and no other."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import authorities
import busctl_program
import postgres
import pytest
from authorities import Authority, show
from control_plane import wait_until
from operator_world import Namespace, World
from projected import project
from recorder import Recorder, eventually, note

from bus_operator.database import Endpoint
from bus_runtime import PgmqBus


@pytest.fixture(scope="module")
def tls_server(running_servers: Callable[[int], postgres.Server]) -> Iterator[postgres.Server]:
    server = running_servers(authorities.VERSION)
    yield server
    asyncio.run(authorities.show_none(server))


@pytest.fixture
async def created(world: World, tls_server: postgres.Server) -> postgres.Database:
    return await world.postgres(server=tls_server)


def uri(created: postgres.Database, mode: str = "verify-full") -> str:
    endpoint = Endpoint("127.0.0.1", created.server.port, created.name, mode)
    return endpoint.uri(postgres.SUPERUSER, created.server.password)


def put_authorities(namespace: Namespace, *trusted: Authority) -> None:
    """As CloudNativePG has them, with the private key beside them."""
    certificates = "".join(authority.pem for authority in trusted)
    namespace.put_secret("bus-ca", {"ca.crt": certificates, "ca.key": trusted[0].key_pem})


def binding(namespace: Namespace) -> dict[str, str]:
    return namespace.secret("orders-bus") or {}


async def test_the_authority_reaches_the_operator_and_the_pods(
    world: World, namespace: Namespace, created: postgres.Database, apiserver: Path, tmp_path: Path
) -> None:
    authority, stranger = Authority(), Authority()
    await show(created.server, authority)
    put_authorities(namespace, stranger)
    database = namespace.database(uri(created), caSecretRef={"name": "bus-ca"})
    channel = namespace.channel()
    place = f"127.0.0.1:{created.server.port}/{created.name}"
    assert database.wait_for("ServerCertificateRefused")["message"] == (
        f"{place} shows a certificate that is not trusted: unable to get local issuer certificate. Compare its issuer"
        " with the authority in spec.caSecretRef of the BusDatabase, or in PGSSLROOTCERT, and the address with its"
        " names"
    )
    assert database.condition("Reachable")["reason"] == "ServerCertificateRefused"

    put_authorities(namespace, authority)
    database.wait_ready()
    channel.wait_ready()
    found = binding(namespace)
    assert (found["sslmode"], found["ca.crt"]) == ("verify-full", authority.pem)
    await channel_works(namespace, tmp_path)
    # As unmodified clients do it.
    session = await asyncpg.connect(f"{found['uri']}&sslrootcert={tmp_path}/orders/ca.crt")
    assert await session.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    await session.close()

    here = {"KUBECONFIG": str(apiserver)}
    # By the administrator's Secret, and by the channel's.
    assert "nobody has joined" in busctl_program.run("peers", "orders", "-n", namespace.name, **here).stderr
    published = busctl_program.run("publish", "orders", "-n", namespace.name, "--raw", "1", **here)
    assert published.returncode == 0, published.stderr

    assert "PRIVATE KEY" not in f"{world.operator.log}{namespace.raw_secret('orders-bus')}{database.get()}"


async def channel_works(namespace: Namespace, root: Path) -> None:
    """With nothing but the binding as the kubelet brings it."""
    project(root / "orders", binding(namespace))
    bus, recorder = PgmqBus.from_binding(root=root), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    await bus.stop()


async def test_an_authority_that_is_replaced(namespace: Namespace, created: postgres.Database, tmp_path: Path) -> None:
    """Binding, operator and a bus that runs go over to the new one; the credential stays."""
    authority, successor = Authority(), Authority()
    await show(created.server, authority)
    put_authorities(namespace, authority)
    database = namespace.database(uri(created), caSecretRef={"name": "bus-ca"})
    channel = namespace.channel()
    channel.wait_ready()
    first = binding(namespace)
    project(tmp_path / "orders", first)
    bus, recorder = PgmqBus.from_binding(root=tmp_path), Recorder()
    await bus.subscribe(recorder)
    await bus.start()

    put_authorities(namespace, successor, authority)
    wait_until(lambda: binding(namespace)["ca.crt"] == successor.pem + authority.pem, "the binding has both")
    project(tmp_path / "orders", binding(namespace))
    await show(created.server, successor)
    put_authorities(namespace, successor)
    wait_until(lambda: binding(namespace)["ca.crt"] == successor.pem, "the binding has the successor")
    project(tmp_path / "orders", binding(namespace))
    assert binding(namespace) == first | {"ca.crt": successor.pem}
    database.wait_ready()
    channel.wait_ready()

    login = await created.server.connect()
    # Else those that are open would go on.
    query = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = $1"
    assert await login.fetchval(query, first["username"]) > 0
    await login.close()
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    await bus.stop()


async def test_an_authority_that_is_named_no_more(namespace: Namespace, created: postgres.Database) -> None:
    """It must not stay in the binding, where pods would go on by it until it is too old."""
    authority = Authority()
    await show(created.server, authority)
    put_authorities(namespace, authority)
    # Without a mode, as CloudNativePG writes it.
    database = namespace.database(uri(created).partition("?")[0], caSecretRef={"name": "bus-ca"})
    namespace.channel().wait_ready()
    assert (binding(namespace)["ca.crt"], binding(namespace)["sslmode"]) == (authority.pem, "verify-full")
    database.patch({"caSecretRef": None})
    wait_until(lambda: "ca.crt" not in binding(namespace), "the binding has no authority")
    assert binding(namespace)["sslmode"] == "prefer"
    database.wait_ready()


async def test_a_certificate_of_another_server(namespace: Namespace, created: postgres.Database) -> None:
    authority = Authority()
    await show(created.server, authority, "192.0.2.7")
    put_authorities(namespace, authority)
    database = namespace.database(uri(created), caSecretRef={"name": "bus-ca"})
    assert "certificate is not valid for '127.0.0.1'" in database.wait_for("ServerCertificateRefused")["message"]
    namespace.put_secret("main-admin", {"uri": uri(created, "verify-ca")})
    database.wait_ready()


def test_a_secret_that_is_not_there_or_holds_none(namespace: Namespace) -> None:
    database = namespace.database("postgresql://u:p@127.0.0.1:1/none", caSecretRef={"name": "bus-ca"})
    assert database.wait_for("SecretNotFound")["message"] == (
        f"Secret {namespace.name}/bus-ca does not exist: create it with the key 'ca.crt' holding the certificates of"
        " the authority that issues the server's, or correct spec.caSecretRef"
    )
    namespace.put_secret("bus-ca", {"tls.crt": Authority().pem})
    assert database.wait_for("SecretInvalid")["message"] == (
        f"Secret {namespace.name}/bus-ca: it has no certificate under the key 'ca.crt': put the authority's there, in"
        " PEM"
    )
    put_authorities(namespace, Authority())
    database.wait_for("ConnectionFailed")
