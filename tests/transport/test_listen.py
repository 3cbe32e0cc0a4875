import socket

import pytest

from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import StartError
from otelwp_agent.transport.listen import address_of, listen


def opened(endpoint, group=None):
    return listen(Endpoint(str(endpoint)), name="receivers/x", backlog=5, unix_mode="0660", unix_group=group)


def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with opened(f"unix://{path}") as alive, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(StartError, match="in use by another process"):
            opened(f"unix://{path}")
        alive.accept()[0].close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartError, match="not a socket"):
        opened(f"unix://{path}")
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("unix:///nowhere/at/all/s.sock", "directory does not exist"),
        ("192.0.2.1:4318", "does not have that address"),
        ("no.such.host.invalid:4318", "does not resolve"),
    ],
)
def test_each_reason_says_what_to_do(endpoint, words):
    with pytest.raises(StartError, match=words) as caught:
        opened(endpoint)
    assert str(caught.value).startswith(f"receivers/x: cannot listen on {endpoint}: ")


def test_a_group_that_is_not_there(tmp_path):
    with pytest.raises(StartError, match="group does not exist"):
        opened(f"unix://{tmp_path}/s.sock", group="no-such-group-here")


def test_no_host_means_both_families():
    with opened(":0") as sock:
        port = sock.getsockname()[1]
        families = [("127.0.0.1", socket.AF_INET)]
        if sock.family is socket.AF_INET6:
            families.append(("::1", socket.AF_INET6))
        for host, family in families:
            with socket.socket(family) as client:
                client.connect((host, port))


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("127.0.0.1:0", "127.0.0.1:7"),
        ("[::1]:0", "[::1]:7"),
        (":0", "*:7"),
        ("unix:///run/a.sock", "unix:///run/a.sock"),
    ],
)
def test_addresses_for_people(endpoint, address):
    assert address_of(Endpoint(endpoint), 7) == address
