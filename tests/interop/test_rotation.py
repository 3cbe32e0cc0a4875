"""Credentials are replaced under load: nothing valid is refused, and nothing revoked is accepted any more."""

import shutil
import ssl
import time
from pathlib import Path

import grpc
import pytest

from tests.e2e.conftest import backend
from tests.interop.postgresql import Postgresql
from tests.interop.process import eventually
from tests.kit.agent import PATIENCE, Agent
from tests.kit.certificates import Authority
from tests.kit.load import GrpcSender, HttpSender, Load, accepted
from tests.kit.tenants import Tenants

REVOKED_WITHIN = 1.0
"""Seconds after which a revoked credential is refused, once the agent has read the change."""
RATE = 20
"""Requests a second of each sender."""
KINDS = (HttpSender, GrpcSender)
SENDERS = [(kind, fresh) for kind in KINDS for fresh in (False, True)]
"""Over HTTP and gRPC, each with one connection, and with one for each request."""

KEYS = """
extensions:
  control_store: {{url: '{tenants.url}', pepper_file: '{tenants.pepper_file}'}}
  api_key:
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: api_key}}}}
      grpc: {{endpoint: '127.0.0.1:0', auth: {{authenticator: api_key}}}}
exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', compression: none}}}}
service:
  extensions: [control_store, api_key]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""

CERTIFICATES = """
extensions:
  client_certificate: {{tenants: {{shop: acme}}}}
receivers:
  otlp:
    protocols:
      http: &server
        endpoint: '127.0.0.1:0'
        tls: {{cert_file: '{folder}/cert', key_file: '{folder}/key', reload_interval: 100ms{clients}}}
        {auth}
      grpc: *server
exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', compression: none}}}}
service:
  extensions: {extensions}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
def url(request, tmp_path):
    """Return the URL of an empty control store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/control.db"
        return
    server = Postgresql()
    try:
        with server:
            yield server.database()
    finally:
        server.remove()


def port(agent, kind):
    return agent.port("http" if kind is HttpSender else "grpc")


def at_last(kind, port, credential, wanted):
    """Ask until the answer is one of `wanted`; return the requests that were sent."""
    asking = Load(kind(port, fresh=True), RATE, credential)
    assert eventually(asking.ask, lambda status: status in wanted, patience=PATIENCE) in wanted
    return asking


def answered_after(loads, began, count=1):
    """Wait until each sender has so many answers to requests that began later."""

    def answers():
        return min(sum(answer.began > began for answer in load.answers) for load in loads)

    assert eventually(answers, lambda least: least >= count, patience=PATIENCE) >= count


def all_arrived(sink, loads):
    """Assert that the backend has the span of each accepted request."""
    sent = sum(len(accepted(load.answers)) for load in loads)
    assert eventually(lambda: sink.spans, lambda spans: spans == sent, patience=PATIENCE) == sent


def test_api_keys_are_rotated(url, tmp_path):
    with Tenants(url, tmp_path / "pepper") as tenants, backend() as sink:
        tenants.create("acme")
        old_id, old = tenants.key("acme")
        with Agent(KEYS.format(tenants=tenants, sink=sink.server_port), tmp_path) as agent:
            loads = [Load(kind(port(agent, kind), fresh=fresh), RATE, {"x-api-key": old}) for kind, fresh in SENDERS]
            # one of each protocol keeps the old key
            behind = [Load(kind(port(agent, kind)), RATE, {"x-api-key": old}) for kind in KINDS]
            for load in (*loads, *behind):
                load.start()
            answered_after(loads, 0, RATE)  # load with the old key
            _, new = tenants.key("acme")
            probes = [at_last(kind, port(agent, kind), {"x-api-key": new}, (200, "OK")) for kind in KINDS]
            for load in loads:
                load.credential = {"x-api-key": new}
                time.sleep(0.1)  # senders are switched one after the other
            answered_after(loads, time.monotonic())  # none has the old key under way
            revoking = time.monotonic()
            tenants.revoke(old_id)
            refused = (401, "UNAUTHENTICATED")
            probes += [at_last(kind, port(agent, kind), {"x-api-key": old}, refused) for kind in KINDS]
            revoked = time.monotonic()
            answered_after((*loads, *behind), revoked + REVOKED_WITHIN)
            for load in (*loads, *behind):
                load.stop()
            all_arrived(sink, (*loads, *behind, *probes))
    for load in loads:
        assert len(load.answers) > RATE
        assert len(accepted(load.answers)) == len(load.answers), "a valid key was refused"
        assert {answer.credential["x-api-key"] for answer in load.answers} == {old, new}
    for load in behind:
        assert all(answer.status in (200, "OK") for answer in load.answers if answer.began + answer.seconds < revoking)
        late = [answer for answer in load.answers if answer.began > revoked + REVOKED_WITHIN]
        assert late
        assert {answer.status for answer in late} <= {401, "UNAUTHENTICATED"}, "a revoked key was accepted"


def place(pair, folder):
    """Replace the files of the server, first the certificate: until the key is replaced too, they do not fit."""
    for source, name in ((pair.cert_file, "cert"), (pair.key_file, "key")):
        shutil.copy(source, folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)


def trust(kind, ca_file, own=None):
    """Return what a sender needs to trust the servers of `ca_file`, with its own certificate if it has one."""
    if kind is GrpcSender:
        files = (own.key_file, own.cert_file) if own else ()
        return grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in (ca_file, *files)))
    context = ssl.create_default_context(cafile=ca_file)
    if own:
        context.load_cert_chain(own.cert_file, own.key_file)
    return context


def served(port):
    """Return the PEM text of the certificate that a server shows."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_certificates_of_servers_are_rotated(tmp_path):
    authority = Authority(tmp_path)
    place(authority.sign(), tmp_path)
    with backend() as sink:
        config = CERTIFICATES.format(folder=tmp_path, clients="", auth="", extensions="[]", sink=sink.server_port)
        config = config.replace("client_certificate: {tenants: {shop: acme}}", "")
        with Agent(config, tmp_path) as agent:
            loads = [
                Load(kind(port(agent, kind), tls=trust(kind, authority.ca_file), fresh=fresh), RATE)
                for kind, fresh in SENDERS
            ]
            for load in loads:
                load.start()
            for number in range(3):
                time.sleep(0.5)  # load with the certificates
                pair = authority.sign(file=f"server{number}")
                place(pair, tmp_path)
                wanted = Path(pair.cert_file).read_text().strip()
                for kind in KINDS:
                    ask = lambda kind=kind: served(port(agent, kind)).strip()  # noqa: E731
                    good = lambda shown, wanted=wanted: shown == wanted  # noqa: E731
                    assert eventually(ask, good, patience=PATIENCE) == wanted
            answered_after(loads, 0, RATE + 1)
            for load in loads:
                load.stop()
            all_arrived(sink, loads)
    for load in loads:
        assert len(load.answers) > RATE
        assert {answer.status for answer in load.answers} <= {200, "OK"}


def test_authorities_of_clients_are_rotated(tmp_path):
    servers, old, new = Authority(tmp_path), Authority(tmp_path, "old-ca"), Authority(tmp_path, "new-ca")
    place(servers.sign(), tmp_path)
    first, second = old.sign("shop", file="first"), new.sign("shop", file="second")
    clients = tmp_path / "clients"

    def accept(*authorities):
        draft = clients.with_suffix(".new")
        draft.write_text("".join(Path(authority.ca_file).read_text() for authority in authorities))
        draft.rename(clients)

    accept(old)
    with backend() as sink:
        config = CERTIFICATES.format(
            folder=tmp_path,
            clients=f", client_ca_file: '{clients}'",
            auth="auth: {authenticator: client_certificate}",
            extensions="[client_certificate]",
            sink=sink.server_port,
        )
        with Agent(config, tmp_path) as agent:

            def sender(kind, own, *, fresh):
                return Load(kind(port(agent, kind), tls=trust(kind, servers.ca_file, own), fresh=fresh), RATE)

            before = [sender(kind, first, fresh=fresh) for kind in KINDS for fresh in (True, False)]
            after = [sender(kind, second, fresh=fresh) for kind, fresh in SENDERS]
            for load in before:
                load.start()
            answered_after(before, 0, RATE // 2)  # load with the old certificates
            accept(old, new)
            agent.wait_for("certificate reloaded", count=len(KINDS))
            for load in after:
                load.start()
            answered_after(after, 0, RATE // 2)  # load with both
            removing = time.monotonic()
            accept(new)
            agent.wait_for("certificate reloaded", count=2 * len(KINDS))
            removed = time.monotonic()
            answered_after((*before, *after), removed + REVOKED_WITHIN, RATE // 2)
            for load in (*before, *after):
                load.stop()
            all_arrived(sink, (*before, *after))
    for load in after:
        assert {answer.status for answer in load.answers} <= {200, "OK"}, "a valid certificate was refused"
    for load in before:
        assert all(answer.status in (200, "OK") for answer in load.answers if answer.began + answer.seconds < removing)
        late = [answer.status for answer in load.answers if answer.began > removed + REVOKED_WITHIN]
        assert late
        assert not {200, "OK"} & set(late), "a certificate of a removed authority was accepted"
