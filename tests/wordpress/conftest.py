"""PHP, if this machine has it: the tests of the plugin are skipped, and say so, where it has not."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.wordpress import WordPress
from tests.wordpress.kit import Listener, Other, Site, assert_private

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples/wordpress/otelwp"
PRELUDE = Path(__file__).with_name("prelude.php")
PATIENCE = 60.0
CASES = ROOT / "tests/wordpress/site/cases.php"


@pytest.fixture(scope="session")
def php_program():
    found = shutil.which("php")
    if found is None:
        pytest.skip("php is not installed: nothing of the WordPress plugin is tested")
    return found


@pytest.fixture
def php(php_program):
    """Run code beside the plugin's classes, without WordPress; `$data` is what it is given; return what it returns."""

    def run(code, data=None):
        script = f"require {str(PRELUDE)!r}; $data = json_decode(stream_get_contents(STDIN), true); {code}"
        wrapped = f"echo json_encode((static function () {{ {script} }})(), JSON_THROW_ON_ERROR);"
        done = subprocess.run(
            [php_program, "-d", "error_reporting=E_ALL", "-d", "display_errors=stderr", "-r", wrapped],
            input=json.dumps(data),
            env={"OTELWP_PLUGIN": str(PLUGIN)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def site():
    with WordPress() as wordpress:
        listener = Listener(wordpress.folder / "agent.dgram")
        wordpress.add_must_use("cases.php", CASES.read_text("utf-8"))
        wordpress.add(PLUGIN)
        running = Site(wordpress, listener)
        running.set(
            sampling_rate=1, endpoints=listener.url, agent_url="", service_name="shop", trusted_proxies="127.0.0.1"
        )
        yield running
        log = (wordpress.folder / "php-fpm.log").read_text("utf-8", "replace")
        assert "wp-content/plugins/otelwp" not in log, log
        assert_private(running)
        listener.socket.close()


@pytest.fixture
def other():
    with Other() as running:
        yield running


@pytest.fixture
def agent(site, other):
    """An agent that takes heartbeats."""
    with site.changed(agent_url=other.url):
        yield other
    site.ask("return update_option('otelwp_agent', []);")
