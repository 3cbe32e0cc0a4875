"""examples/docker-compose.yaml against what Compose asks of such a file, and against the files that it names.

No engine runs here: this is about what can be told from the text.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples/docker-compose.yaml"
TEXT = FILE.read_text("utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]

# From the Compose specification: what of it is used here, or is likely to be.
TOP = {"name", "services", "volumes", "networks", "configs", "secrets"}
SERVICE = {
    *("build", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "init", "networks"),
    *("ports", "restart", "tmpfs", "user", "volumes"),
}
BUILD = {"args", "context", "dockerfile", "dockerfile_inline", "target"}
HEALTHCHECK = {"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
RESTARTS = {"no", "always", "on-failure", "unless-stopped"}

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_the_file_has_what_compose_knows():
    assert COMPOSE.keys() <= TOP
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in [COMPOSE["name"], *SERVICES])
    assert set((COMPOSE.get("volumes") or {}).values()) == {None}


@each_service
def test_a_service_has_what_compose_knows(service):
    assert service.keys() <= SERVICE
    assert ("image" in service) != ("build" in service)
    assert service.get("build", {}).keys() <= BUILD
    assert service.get("restart", "no") in RESTARTS
    assert re.fullmatch(r"[a-z0-9/_-]+:[\w.-]+", service.get("image", "some/image:1"))
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())


@each_service
def test_ports_are_published_on_loopback_alone(service):
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d{1,5}:\d{1,5}", port)


@each_service
def test_healthchecks_are_well_formed(service):
    check = service.get("healthcheck", {"test": ["CMD", "true"]})
    assert check.keys() <= HEALTHCHECK
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["test"]) > 1
    assert all(isinstance(word, str) for word in check["test"])
    for name in ("interval", "timeout"):
        assert re.fullmatch(r"\d+(s|m)", check.get(name, "1s"))


@each_service
def test_what_a_service_waits_for_is_there_and_can_be_waited_for(service):
    for name, how in service.get("depends_on", {}).items():
        assert how.keys() <= {"condition", "restart", "required"}
        assert how["condition"] in CONDITIONS
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[name]


@each_service
def test_what_is_mounted_is_there(service):
    targets = []
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        assert mode in ([], ["ro"])
        targets.append(target)
        if source.startswith("."):
            assert (FILE.parent / source).exists()
        else:
            assert source in COMPOSE["volumes"]
    assert len(set(targets)) == len(targets)
    assert all(target.startswith("/") for target in targets)


def test_every_volume_is_used():
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used >= COMPOSE["volumes"].keys()


def test_every_variable_has_a_default():
    assert re.findall(r"\$\{([^}]*)\}", TEXT) == ["DB_PASSWORD:-wordpress"] * 2
    assert "$$" not in TEXT


def test_the_agent_s_image_is_made_of_what_is_here():
    dockerfile = SERVICES["agent"]["build"]["dockerfile_inline"]
    assert (FILE.parent / SERVICES["agent"]["build"]["context"]).resolve() == ROOT
    instructions = [line.split() for line in dockerfile.splitlines() if not line.startswith("#")]
    assert {words[0] for words in instructions} == {"FROM", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    for words in instructions:
        if words[0] == "COPY":
            assert all((ROOT / source).exists() for source in words[1:-1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    copied = {source for words in instructions if words[0] == "COPY" for source in words[1:-1]}
    assert {"pyproject.toml", "otelwp_agent", project["readme"]} <= copied
    (entry,) = [words for words in instructions if words[0] == "ENTRYPOINT"]
    assert entry == ["ENTRYPOINT", f'["{next(iter(project["scripts"]))}"]']


def test_the_agent_s_configuration_is_good_with_this_environment():
    agent = SERVICES["agent"]
    (source,) = [volume.split(":")[0] for volume in agent["volumes"] if "agent.yaml" in volume]
    found = load([str(FILE.parent / source)], (), agent["environment"])
    assert [str(warning) for warning in make_plan(found, Catalog()).warnings] == []
    hosts = {re.sub(r"^.*/", "", agent["environment"][name]).partition(":")[0] for name in ("JAEGER", "ZIPKIN")}
    assert hosts <= SERVICES.keys()


def test_the_plugin_is_told_where_the_agent_is():
    extra = SERVICES["wordpress"]["environment"]["WORDPRESS_CONFIG_EXTRA"]
    constants = dict(re.findall(r"define\( '(\w+)', '?([^']*?)'? \);", extra))
    assert len(constants) == len(extra.strip().splitlines())
    settings = (FILE.parent / "wordpress/otelwp/includes/class-settings.php").read_text("utf-8")
    for constant in constants:
        assert f"'{constant.removeprefix('OTELWP_').lower()}'" in settings
    config = (FILE.parent / "wordpress.yaml").read_text("utf-8")
    for way in constants["OTELWP_ENDPOINTS"].split():
        place = re.sub(r"^\w+://(agent:|/run/otelwp/)", "", way)
        assert place in config, way
    assert constants["OTELWP_AGENT_URL"].rpartition(":")[2] in config
    assert (
        urlsplit(constants["OTELWP_AGENT_URL"]).hostname
        in yaml.safe_load(config)["extensions"]["health_check"]["allowed_hosts"]
    )
    for name in ("agent", "wordpress"):
        assert "sockets:/run/otelwp" in SERVICES[name]["volumes"]
