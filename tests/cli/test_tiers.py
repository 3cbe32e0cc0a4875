import json
from pathlib import Path

import pytest

from otelwp_agent.cli import main
from tests.licensing.issuer import ISSUER

ROOT = Path(__file__).parents[2]

SHOP = """\
# The shop
receivers:
  otlp: {protocols: {http: {}}} # from PHP
processors:
  # a quarter is enough
  probabilistic_sampler:
    sampling_percentage: 25 # of all traces
  adaptive_sampling:
    target: {spans_per_second: 500}
    sites:
      minimum: 60
  batch:
exporters:
  jaeger: {endpoint: 'localhost:4317'}
  zipkin: {endpoint: "http://localhost:9411/api/v2/spans"}
service:
  # for now
  tier: enterprise
  pipelines:
    traces:
      receivers: [otlp]
      processors: [adaptive_sampling, probabilistic_sampler, batch]
      exporters:
        # the second one is for the other team
        - jaeger
        - zipkin
"""


@pytest.fixture
def tiers(tmp_path, capfd, monkeypatch):
    """Run `tiers …` on a file: return the status, stdout and stderr; with `--json`, the value on stdout."""

    monkeypatch.chdir(tmp_path)

    def run(command, text, *arguments):
        (tmp_path / "a.yaml").write_text(text)
        status = main._run(["tiers", command, "--config", "a.yaml", *arguments])
        out, err = capfd.readouterr()
        return json.loads(out) if "--json" in arguments else (status, out, err)

    return run


def test_what_a_file_uses_and_what_each_tier_changes(tiers):
    status, out, err = tiers("explain", SHOP)
    assert (status, err) == (0, "")
    assert (
        out
        == """\
This agent has tier enterprise: `service.tier` is `enterprise`.
This configuration needs tier enterprise.

It uses:

TIER        LINE       WHAT
free        a.yaml:3   receivers.otlp
free        a.yaml:6   processors.probabilistic_sampler
pro         a.yaml:7   processors.probabilistic_sampler.sampling_percentage
pro         a.yaml:8   processors.adaptive_sampling
enterprise  a.yaml:10  processors.adaptive_sampling.sites
pro         a.yaml:12  processors.batch
free        a.yaml:14  exporters.jaeger
free        a.yaml:15  exporters.zipkin

Tier free changes:

  a.yaml:15: exporters/zipkin stopped: when its queue is empty
  a.yaml:8: processors/adaptive_sampling bypassed
  a.yaml:12: processors/batch bypassed
  a.yaml:7: processors/probabilistic_sampler limited: sampling_percentage is 10

Tier pro changes:

  a.yaml:10: processors/adaptive_sampling limited: sites is left out

Tier enterprise changes nothing.
"""
    )


def test_the_same_for_programs(tiers):
    told = tiers("explain", SHOP, "--json")
    assert (told["tier"], told["basis"], told["needed"]) == ("enterprise", "configured", "enterprise")
    assert [part["line"] for part in told["used"] if part["tier"] != "free"] == [7, 8, 10, 12]
    assert [told["tiers"][tier]["enables_all"] for tier in ("free", "pro", "enterprise")] == [False, False, True]
    (change,) = told["tiers"]["pro"]["changes"]
    assert (change["component"], change["action"], change["line"]) == ("processors/adaptive_sampling", "limited", 10)


def test_a_default_that_differs_needs_no_higher_tier(tiers):
    told = tiers(
        "explain",
        SHOP.replace("  batch:\n", "  batch:\n  wordpress:\n").replace("_sampler, batch", "_sampler, wordpress"),
        "--json",
    )
    (change,) = [each for each in told["tiers"]["pro"]["changes"] if each["component"] == "processors/wordpress"]
    assert (change["detail"], change["written"]) == ("multisite.enabled is false", False)
    free = "receivers: {zipkin: }\nprocessors: {wordpress: }\nexporters: {jaeger: {endpoint: 'a:1'}}\n"
    free += "service: {pipelines: {traces: {receivers: [zipkin], processors: [wordpress], exporters: [jaeger]}}}\n"
    assert tiers("explain", free, "--json")["needed"] == "free"


@pytest.mark.parametrize(
    ("stated", "variable", "tier", "basis"),
    [
        ("tier: free", "", "free", "configured"),
        ("", "", "enterprise", "evaluation"),
        ("", "1", "free", "required"),
        ("license: {key: LICENSE, public_keys: [PUBLIC]}", "1", "pro", "license"),
        ("license: {key: no.licence.here}", "", "free", "lapsed"),
        ("license: {file: /no/such/file}", "", "free", "lapsed"),
    ],
)
def test_what_the_agent_may_use_is_told_without_the_network(  # noqa: PLR0917 - fixtures and parameters
    tiers, monkeypatch, stated, variable, tier, basis
):
    monkeypatch.setenv("OTELWP_REQUIRE_LICENSE", variable)
    stated = stated.replace("LICENSE", ISSUER.issue()).replace("PUBLIC", ISSUER.public)
    told = tiers("explain", SHOP.replace("tier: enterprise", stated), "--json")
    assert (told["tier"], told["basis"], told["needed"]) == (tier, basis, "enterprise")


def test_a_file_that_is_invalid_is_refused_for_that(tiers):
    status, out, err = tiers("explain", SHOP.replace("batch:", "bacth:"))
    assert (status, out) == (1, "")
    assert "a.yaml:12:3: there is no processor of type `bacth`: did you mean `batch`?" in err.replace(
        "processors.bacth: ", ""
    )


def test_a_tier_that_is_invalid_is_refused(tiers):
    status, _, err = tiers("explain", SHOP.replace("tier: enterprise", "tier: entreprise"))
    assert status == 1
    assert "service.tier: this must be `free`, `pro` or `enterprise`, not 'entreprise': did you mean" in err


def test_a_migration_shows_the_differences_and_writes_nothing(tiers, tmp_path):
    status, out, _ = tiers("migrate", SHOP, "--to", "free")
    assert status == 0
    assert [line for line in out.splitlines() if line[0] in "+-"][2:] == [
        "-    sampling_percentage: 25 # of all traces",
        "+    sampling_percentage: 10 # of all traces",
        "-  tier: enterprise",
        "+  tier: free",
        "-      processors: [adaptive_sampling, probabilistic_sampler, batch]",
        "+      processors: [probabilistic_sampler]",
        "-        - zipkin",
    ]
    assert (tmp_path / "a.yaml").read_text() == SHOP


def test_a_migration_writes_the_file_in_place_with_its_mode_or_elsewhere(tiers, tmp_path):
    tiers("explain", SHOP)
    (tmp_path / "a.yaml").chmod(0o640)
    status, _, err = tiers("migrate", SHOP, "--to", "pro", "--in-place")
    assert (status, err) == (0, "wrote a.yaml\n")
    changed = (tmp_path / "a.yaml").read_text()
    assert changed == SHOP.replace("    sites:\n      minimum: 60\n", "").replace("tier: enterprise", "tier: pro")
    assert (tmp_path / "a.yaml").stat().st_mode & 0o777 == 0o640
    assert tiers("migrate", SHOP, "--to", "pro", "--output", str(tmp_path / "b.yaml"))[0] == 0
    assert (tmp_path / "b.yaml").read_text() == changed
    status, out, err = tiers("migrate", SHOP, "--to", "pro", "--output", "-")
    assert (status, out) == (0, changed)
    assert "-      minimum: 60" in err
    assert tiers("migrate", changed, "--to", "pro")[1] == "a.yaml is a configuration for tier pro already\n"


def test_wrong_usage_and_files_that_cannot_be_written(tiers, tmp_path):
    assert tiers("migrate", SHOP, "--to", "pro", "--in-place", "--output", "b.yaml")[0] == 2
    assert tiers("migrate", SHOP, "--to", "gold")[0] == 2
    status, _, err = tiers("migrate", SHOP, "--to", "pro", "--output", str(tmp_path / "no" / "b.yaml"))
    assert (status, err) == (1, f"error: {tmp_path}/no/b.yaml cannot be written: No such file or directory\n")
    assert main._run(["tiers", "migrate", "--config", str(tmp_path / "none.yaml"), "--to", "pro"]) == 1


def test_a_running_agent_does_not_import_what_migrates():
    package = ROOT / "otelwp_agent"
    sources = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    assert [name for name, source in sources.items() if "from ruamel" in source] == ["cli/tier_migration.py"]
    imports = [name for name, source in sources.items() if "tier_migration import" in source]
    assert imports == ["cli/tiers.py"], "only the command"


def test_what_tenants_do_not_get_is_listed_by_the_tier_of_their_plans(tiers):
    text = (ROOT / "examples" / "managed_collector.yaml").read_text()
    no_socket = ("--set", "service.control_socket=none")  # its path would be too long here
    status, out, err = tiers("explain", text, *no_socket)
    assert status == 0, err
    free, pro, enterprise = out.split("For a tenant whose plan has tier ")[1:]
    assert "processors/batch: bypassed" in free
    assert "receivers/otlp: encrypted requests refused" in free
    assert "processors/batch" not in pro
    assert "receivers/otlp: encrypted requests refused" in pro
    assert enterprise == "enterprise, nothing is left out.\n"
    found = tiers("explain", text, *no_socket, "--json")["tenants"]
    line = next(number for number, each in enumerate(text.splitlines(), 1) if each.startswith("    sealed:"))
    assert found["pro"] == [
        {"component": "receivers/otlp", "effect": "encrypted requests refused", "file": "a.yaml", "line": line}
        | {"column": 5}
    ]
    assert tiers("explain", SHOP, "--json")["tenants"] == {}
