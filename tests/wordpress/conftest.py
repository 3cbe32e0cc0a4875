"""PHP, if this machine has it: the tests of the plugin are skipped, and say so, where it has not."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples/wordpress/otelwp"
PRELUDE = Path(__file__).with_name("prelude.php")
PATIENCE = 60.0


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
