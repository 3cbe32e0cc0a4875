import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from otelwp_agent.cli.new import new, render
from otelwp_agent.errors import AgentError

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).with_name("ruff")
KINDS = ("processor", "exporter", "receiver")


def write(kind, name, folder):
    result = CliRunner().invoke(new, [kind, name, "--directory", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return folder / name


def run(*command, folder, **environment):
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_passes_its_own_tests(kind, tmp_path):
    root = write(kind, f"acme_{kind}", tmp_path)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error")
    out = run(sys.executable, "-m", "pytest", *options, folder=root, PYTHONPATH=str(root))
    assert " passed" in out
    assert "failed" not in out


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_is_as_clean_as_this_repository(kind, tmp_path):
    root = write(kind, "acme_shop", tmp_path)
    ignored = "S101,COM812,CPY,D,ANN,EM,TRY003,INP001,ASYNC110"
    run(RUFF, "check", "--isolated", "--select=ALL", f"--ignore={ignored}", "--line-length=120", ".", folder=root)
    run(RUFF, "format", "--isolated", "--line-length=120", "--check", ".", folder=root)


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_in_a_template_is_filled(kind):
    files = render(kind, "acme_shop_2")
    assert {*files} == {
        "README.md", "pyproject.toml", "example.yaml", "acme_shop_2/__init__.py", "tests/test_acme_shop_2.py",
    }  # fmt: skip
    for path, text in files.items():
        assert "$" not in text, path
    assert f'"{kind}:acme_shop_2" = "acme_shop_2:FACTORY"' in files["pyproject.toml"]
    assert "class AcmeShop2(" in files["acme_shop_2/__init__.py"]
    section = yaml.safe_load(files["example.yaml"])[f"{kind}s"]
    assert [*section] == ["acme_shop_2"] if kind != "processor" else "acme_shop_2" in section


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Acme", "use lower-case letters"),
        ("acme-redact", "use lower-case letters"),
        ("2fast", "use lower-case letters"),
        ("acme_", "use lower-case letters"),
        ("../acme", "use lower-case letters"),
        ("class", "this is a keyword of Python"),
        ("match", "this is a keyword of Python"),
        ("batch", "a processor of this type exists; add a prefix, like `acme_batch`"),
        ("otlphttp", "an exporter of this type exists"),
        ("json", "the package would hide the Python module"),
        ("yaml", "the package would hide the Python module"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name, problem, tmp_path):
    result = CliRunner().invoke(new, ["processor", name, "-d", str(tmp_path)])
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "acme_shop").mkdir()
    with pytest.raises(AgentError, match="acme_shop exists already: choose another name or --directory"):
        CliRunner().invoke(new, ["processor", "acme_shop", "-d", str(tmp_path)], catch_exceptions=False)
    assert list((tmp_path / "acme_shop").iterdir()) == []


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A virtual environment into which this agent is installed as a wheel. What it needs is borrowed from ours."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (borrowed,) = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
    (site / "borrowed.pth").write_text(f"{borrowed}\n")  # a path alone: the .pth files in it are not read
    source = folder / "source"
    shutil.copytree(ROOT / "otelwp_agent", source / "otelwp_agent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install(python, source, folder)
    return python


def install(python, source, folder):
    """Install from source, without the network."""
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--quiet")
    run(python, "-m", "pip", "--disable-pip-version-check", "install", *options, source, folder=folder)


def test_it_runs_in_a_fresh_environment_from_yaml(fresh, tmp_path):
    agent = fresh.with_name("otelwp-agent")
    assert str(fresh.parents[1]) in run(
        fresh, "-c", "import otelwp_agent; print(otelwp_agent.__file__)", folder=tmp_path
    )
    run(agent, "new", "processor", "acme_shop", folder=tmp_path)
    root = tmp_path / "acme_shop"
    install(fresh, root, tmp_path)
    assert "passed" in run(fresh, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", folder=root)
    assert "acme_shop" in run(agent, "components", folder=tmp_path)
    assert "OK: 1 pipeline, 3 components" in run(agent, "validate", "--config", "example.yaml", folder=root)
    free = "receivers.otlp.protocols.http.endpoint=127.0.0.1:0"
    settings = ("--set", free, "--set", "service.telemetry.metrics.address=none")
    with subprocess.Popen(
        [agent, "run", "--config", "example.yaml", *settings], cwd=root, stderr=subprocess.PIPE, text=True
    ) as process:
        port = listening(process)
        run(agent, "generate", "--count", "1", "--rate", "0", "--endpoint", f"127.0.0.1:{port}", folder=root)
        process.terminate()
        shown = process.stderr.read()
    assert process.returncode == 0
    assert 'user_agent.original: "***"' in shown


def listening(process):
    """Return the port that the agent says it listens on."""
    for line in process.stderr:
        if line.startswith("  http "):
            return int(line.split()[1].rpartition(":")[2])
    raise AssertionError("it does not listen")
