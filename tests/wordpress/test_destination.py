"""Where the plugin may connect: never to metadata services or sockets of others, to other hosts by a constant alone."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading

import pytest

from tests.wordpress.conftest import PLUGIN, PRELUDE

REFUSAL = """
    return array_map(static function ($text) use ($data) {
        return Otelwp\\Destination::refusal($text, $data['fixed']);
    }, $data['texts']);
"""
FORBIDDEN = "refused: a link-local, metadata or reserved address"
SPELLING = "refused: an ambiguous spelling of an address"
OTHER_HOST = "refused: another host, which wp-config.php does not name"

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "[fe80::1]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "[FD00:0EC2:0:0:0:0:0:254]",
    "[fd20:ce::254]",
    "[::]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b::127.0.0.1]",
    "[2002:a9fe:a9fe::1]",
    "metadata.google.internal",
    "Metadata.Google.Internal.",
    "metadata",
    "instance-data",
]
AMBIGUOUS = [
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "127.1",
    "0177.0.0.1",
    "127.0.0.1.1",
    "1.2.3.999",
    "x.0x7f",
    "[1::2::3]",
    "[127.0.0.1.5]",
]
LOOPBACK = ["127.0.0.1", "127.8.9.10", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST"]
OTHERS = ["10.0.0.7", "192.0.2.1", "[2001:db8::1]", "[fd00::7]", "agent", "collector.example", "169.example"]


@pytest.mark.parametrize("fixed", [False, True], ids=["option", "constant"])
@pytest.mark.parametrize(
    ("hosts", "by_option", "by_constant"),
    [
        (METADATA, FORBIDDEN, FORBIDDEN),
        (AMBIGUOUS, SPELLING, SPELLING),
        (LOOPBACK, "", ""),
        (OTHERS, OTHER_HOST, ""),
    ],
    ids=["metadata", "ambiguous", "loopback", "others"],
)
def test_hosts(php, hosts, by_option, by_constant, fixed):
    texts = [form.format(host) for host in hosts for form in ("http://{}:4318/v1/traces", "udp://{}:4319")]
    found = php(REFUSAL, {"texts": texts, "fixed": fixed})
    assert dict(zip(texts, found, strict=True)) == dict.fromkeys(texts, by_constant if fixed else by_option)


NETWORKS = """
    return array_map(static function ($each) { return Otelwp\\Address::is_within($each[0], $each[1]); }, $data);
"""


def test_networks(php):
    cases = [
        (["10.1.2.3", ["10.0.0.0/8"]], True),
        (["11.1.2.3", ["10.0.0.0/8"]], False),
        (["192.0.2.129", ["192.0.2.128/25"]], True),
        (["192.0.2.127", ["192.0.2.128/25"]], False),
        (["192.0.2.7", ["192.0.2.7"]], True),
        (["::ffff:192.0.2.7", ["192.0.2.0/24"]], True),
        (["192.0.2.7", ["::ffff:192.0.2.0/120"]], True),
        (["2001:db8::7", ["10.0.0.0/8", "2001:db8::/32"]], True),
        (["2001:db9::7", ["2001:db8::/32"]], False),
        (["2001:db8::7", ["0.0.0.0/0"]], False),
        (["192.0.2.7", ["0.0.0.0/0"]], True),
        (["192.0.2.7", ["192.0.2.7/33", "192.0.2.7/", "192.0.2", "x", "", "192.0.2.7/-1", 7, None]], False),
        (["", ["0.0.0.0/0", "::/0"]], False),
        (["192.0.2.7, 10.0.0.1", ["0.0.0.0/0"]], False),
        (["unix:", ["0.0.0.0/0"]], False),
    ]
    assert php(NETWORKS, [case for case, _ in cases]) == [expected for _, expected in cases]


SOCKET = "return Otelwp\\Unix_Socket::refusal($data);"


@pytest.fixture
def folder(tmp_path):
    """Give a folder that only its owner can write to, with a short path."""
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    return path


@contextlib.contextmanager
def bound(path):
    directory = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"/proc/self/fd/{directory}/{path.name}")  # A path of a socket has 108 bytes.
        os.close(directory)
        yield path


def test_a_socket_of_ours(php, folder):
    with bound(folder / "x.sock") as path:
        assert php(SOCKET, str(path)) == ""
        assert php(SOCKET, f"{folder}/./../{folder.name}//x.sock") == ""
    assert php(SOCKET, str(folder / "absent.sock")) == "the socket does not exist"
    (folder / "file").write_text("")
    assert php(SOCKET, str(folder / "file")) == "refused: not a socket"
    assert php(SOCKET, str(folder)) == "refused: not a socket"
    assert php(SOCKET, str(folder / "file" / "x.sock")) == "the socket does not exist"


def test_a_folder_that_others_can_write_to(php, folder):
    with bound(folder / "x.sock") as path:
        for mode in (0o777, 0o1777):
            folder.chmod(mode)
            assert php(SOCKET, str(path)) == "refused: others can write to the folder"
    folder.chmod(0o777)
    (folder / "own").mkdir()
    with bound(folder / "own" / "x.sock") as path:
        assert php(SOCKET, str(path)) == "refused: others can write to the folder"
        folder.chmod(0o1777)  # As /tmp: what is in it can be renamed by its owner alone.
        assert php(SOCKET, str(path)) == ""


def test_symbolic_links(php, folder):
    with bound(folder / "x.sock") as path:
        (folder / "link.sock").symlink_to(path)
        assert php(SOCKET, str(folder / "link.sock")) == "refused: a symbolic link"
    (folder / "loop").symlink_to("loop")
    assert php(SOCKET, str(folder / "loop" / "x.sock")) == "refused: a symbolic link"


by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
STRANGER = 12345


@by_root
def test_links_of_folders_belong_to_root(php, folder):
    """As /var/run does."""
    (folder / "run").mkdir()
    (folder / "var").symlink_to("run")
    with bound(folder / "run" / "x.sock"):
        assert php(SOCKET, str(folder / "var" / "x.sock")) == ""
        os.lchown(folder / "var", STRANGER, STRANGER)
        assert php(SOCKET, str(folder / "var" / "x.sock")) == "refused: a symbolic link"


@by_root
def test_sockets_of_other_users(php, folder):
    with bound(folder / "x.sock") as path:
        os.chown(path, STRANGER, STRANGER)
        assert php(SOCKET, str(path)) == "refused: the socket belongs to another user"
        for owner in (str(STRANGER), f"'{STRANGER}'", f"['root', {STRANGER}]"):
            assert php(f"define('OTELWP_SOCKET_OWNER', {owner}); {SOCKET}", str(path)) == ""
        os.chown(path, 0, 0)
        os.chown(folder, STRANGER, STRANGER)
        assert php(SOCKET, str(path)) == "refused: the folder belongs to another user"


@by_root
def test_nothing_is_sent_to_a_socket_of_another_user(php, folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as foreign:
        path = os.path.relpath(folder / "x.sock")
        foreign.bind(path)
        foreign.settimeout(0)
        os.chown(path, STRANGER, STRANGER)
        url = f"unixgram://{(folder / 'x.sock').resolve()}"
        assert len(url) < 108
        taken, problems = php(
            "$s = new Otelwp\\Sender([$data], new Otelwp\\Breaker()); return [$s->send('x'), $s->problems];", url
        )
        assert (taken, problems) == ("", {url: "refused: the socket belongs to another user"})
        with pytest.raises(BlockingIOError):
            foreign.recv(100)


class Server:
    """A server that answers each request with `answer`, and keeps what came."""

    def __init__(self, answer):
        self.answer = answer
        self.received = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(10)
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with connection:
                    self.received.append(connection.recv(1 << 16))
                    connection.sendall(self.answer)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


REQUEST = """
    $headers = ['Authorization' => "Bearer k\\r\\nX: y"];
    $answer = Otelwp\\Agent_Client::request('GET', $data['url'], '/health', '', $headers);
    return is_wp_error($answer) ? $answer->get_error_message() : $answer['status'];
"""


def test_a_redirect_is_not_followed(php):
    with Server(b"HTTP/1.0 200 OK\r\n\r\n") as other:
        location = f"HTTP/1.0 307 Elsewhere\r\nLocation: http://127.0.0.1:{other.port}/\r\n\r\n"
        with Server(location.encode()) as agent:
            assert php(REQUEST, {"url": f"http://127.0.0.1:{agent.port}"}) == 307
    (request,) = agent.received
    assert b"\r\nAuthorization: Bearer kX: y\r\n" in request
    assert other.received == []


@pytest.mark.parametrize("host", ["169.254.169.254", "collector.example", "2852039166"])
def test_the_agent_is_not_asked_at_an_address_that_is_refused(php, host):
    message = php(REQUEST, {"url": f"http://{host}"})
    assert message.startswith("refused, because")
    if host == "collector.example":
        assert "OTELWP_AGENT_URL" in message


def test_a_name_that_resolves_to_a_forbidden_address(php):
    """The address that was connected to counts, before anything is written. 0.0.0.0 is this host, and forbidden."""
    peer = """
        $server = stream_socket_server('tcp://0.0.0.0:0');
        $port = substr(strrchr(stream_socket_get_name($server, false), ':'), 1);
        $found = [];
        foreach (['127.0.0.1', '[::ffff:127.0.0.1]'] as $host) {
            $socket = @stream_socket_client("tcp://$host:$port", $code, $error, 2);
            $found[] = $socket ? Otelwp\\Destination::peer_refusal($socket) : '';
        }
        return $found;
    """
    assert php(peer) == ["", ""]
    names = """
        return array_map(static function ($name) { return Otelwp\\Destination::name_refusal($name); }, $data);
    """
    refused = ["169.254.169.254:80", "[fe80::1]:80", "fe80::1:80", "[::ffff:169.254.169.254]:80", "nonsense"]
    assert php(names, refused) == [FORBIDDEN] * len(refused)
    assert php(names, ["127.0.0.1:80", "[::1]:80", "192.0.2.1:80", "[2001:db8::1]:80", ""]) == [""] * 5


NAMESPACE = """
mount --bind "$1" /etc/hosts && ip link set lo up && ip address add 169.254.169.254/32 dev lo || exit 77
exec php -r "$2"
"""
LISTENING = r"""
    require getenv('OTELWP_PRELUDE');
    $server = stream_socket_server('tcp://169.254.169.254:0');
    $port = substr(strrchr(stream_socket_get_name($server, false), ':'), 1);
    define('OTELWP_AGENT_URL', "http://agent.example:$port");
    $answer = Otelwp\Agent_Client::request('GET', OTELWP_AGENT_URL, '/', '', ['Authorization' => 'Bearer key']);
    $found = [$answer->get_error_message()];
    foreach (["http://agent.example:$port", "udp://agent.example:$port"] as $url) {
        $found[] = Otelwp\Endpoint::parse($url, true)->deliver('trace');
    }
    while ($connection = @stream_socket_accept($server, 0)) {
        $found[] = stream_get_contents($connection);
    }
    echo json_encode($found);
"""


def test_nothing_is_written_to_a_name_that_resolves_to_link_local(php_program, tmp_path):
    """On a network of the test's own, where a name server would have answered with the metadata service's address."""
    hosts = tmp_path / "hosts"
    hosts.write_text("169.254.169.254 agent.example\n")
    unshare = shutil.which("unshare")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [unshare, *as_root, "--net", "--mount", "sh", "-c", NAMESPACE, "sh", hosts, LISTENING]
    environment = {**os.environ, "OTELWP_PRELUDE": str(PRELUDE), "OTELWP_PLUGIN": str(PLUGIN)}
    done = unshare and subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if not done or done.returncode in (1, 77):
        pytest.skip("no network namespace can be made here: resolved addresses are tested by their names alone")
    assert done.returncode == 0, done.stderr
    explanation, by_tcp, by_udp, *received = json.loads(done.stdout)
    assert explanation.startswith("refused, because it is a link-local")
    assert (by_tcp, by_udp) == (FORBIDDEN, FORBIDDEN)
    assert received == ["", ""]
