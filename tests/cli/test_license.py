"""Keys and licences without a control store, from the key of the issuer to the agent's file."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from otelwp_agent.cli import main
from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import MAX_LICENSE, verify_license

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{debug: {{}}}}
service:
  license: {{file: '{file}', public_keys: ['{key}']}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""
TERMS = ("--customer", "Shop Ltd", "--tier", "pro")


def day(offset):
    return str(datetime.now(UTC).date() + timedelta(days=offset))


@pytest.fixture
def run(capfd):
    def run(*arguments):
        status = main._run([*map(str, arguments)])
        out, err = capfd.readouterr()
        return status, out.strip(), err

    return run


@pytest.fixture
def issuer(run, tmp_path):
    """Return the path of a private key and the text of its public key."""
    path = tmp_path / "signing.pem"
    status, public, _ = run("license", "keygen", path)
    assert status == 0
    return path, public


@pytest.fixture
def licence(run, issuer):
    def issue(*arguments):
        status, text, err = run("license", "issue", "--signing-key", issuer[0], "--expires", day(30), *arguments)
        assert status == 0, err
        return text

    return issue


def test_a_private_key_is_written_for_its_owner_only_and_never_overwritten(run, issuer):
    path, public = issuer
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    status, _, err = run("license", "keygen", path)
    assert (status, "File exists" in err) == (1, True)
    assert path.read_bytes() == before
    assert len(public) == 43


def test_a_licence_has_the_terms_of_the_options(issuer, licence):
    options = ("--feature", "fleet", "--limit", "sites=5", "--domain", "*.shop.example", "--lease-days", 0)
    text = licence(*TERMS, "--id", "shop-1", "--not-before", day(-1), *options)
    terms = verify_license(text, {key_id(issuer[1]): issuer[1]})
    assert (terms.jti, terms.sub, terms.tier, str(terms.expires)) == ("shop-1", "Shop Ltd", "pro", day(30))
    assert (terms.features, terms.limits, terms.domains, terms.lease) == (
        ["fleet"],
        {"sites": 5},
        ["*.shop.example"],
        None,
    )


def test_ids_and_leases_have_defaults(issuer, licence):
    keys = {key_id(issuer[1]): issuer[1]}
    first, second = (verify_license(licence(*TERMS), keys) for _ in range(2))
    assert first.jti != second.jti
    assert first.lease == first.iat + 30 * 86400


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("--expires", day(-1)), 2, "has passed"),
        (("--expires", "31.12.2030"), 2, "is not a day"),
        (("--expires", day(1), "--not-before", day(2)), 1, "is after expires"),
        (("--expires", day(1), "--limit", "sites=many"), 2, "is not a number"),
        (("--expires", day(1), "--limit", "sites=-1"), 1, "limits.sites"),
        (("--expires", day(1), "--id", "../x"), 1, "id: "),
        (("--expires", day(1), "--lease-days", 367), 1, "lease_days must be from 1 to 366"),
        (("--expires", day(1), "--domain", "a b"), 1, "host name"),
        (
            (
                "--expires",
                day(1),
                *(word for number in range(90) for word in ("--domain", f"{number}{'x' * 90}.example")),
            ),
            1,
            "fewer",
        ),
    ],
    ids=range(9),
)
def test_wrong_terms_are_refused(run, issuer, arguments, status, why):
    found, out, err = run("license", "issue", "--signing-key", issuer[0], *TERMS, *arguments)
    assert (found, out) == (status, "")
    assert why in err


def test_a_signing_key_that_cannot_be_used_is_named(run, tmp_path):
    for content, why in ((None, "cannot be read"), ("text", "not an Ed25519 private key")):
        path = tmp_path / "key.pem"
        if content is not None:
            path.write_text(content)
        status, _, err = run("license", "issue", "--signing-key", path, *TERMS, "--expires", day(1))
        assert (status, why in err) == (1, True)


def test_inspecting_shows_the_terms_and_whether_they_are_valid(run, issuer, licence, tmp_path):
    file = tmp_path / "license"
    file.write_text(licence(*TERMS, "--id", "shop-1", "--limit", "sites=5"))
    status, out, _ = run("license", "inspect", file, "--public-key", issuer[1])
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0
    assert (lines["id"], lines["customer"], lines["limits"], lines["valid"]) == ("shop-1", "Shop Ltd", "sites=5", "yes")
    status, out, _ = run("license", "inspect", file, "--json")
    shown = json.loads(out)
    assert (status, shown["verified"], shown["valid"], shown["jti"]) == (1, False, False, "shop-1")
    assert "public_keys" in shown["state"]


def test_inspecting_a_text_that_is_no_licence_fails(run, issuer, licence, tmp_path):
    file = tmp_path / "license"
    text = licence(*TERMS)
    for content in ("", "x", text[:-8], "a." * MAX_LICENSE, f"{text}x"):
        file.write_text(content)
        status, out, err = run("license", "inspect", file, "--public-key", issuer[1])
        assert (status, out) == (1, "")
        assert "this licence is not valid" in err
    assert run("license", "inspect", tmp_path / "none")[0] == 1
    assert "is not a public key" in run("license", "inspect", file, "--public-key", "x" * 43)[2]


def test_a_licence_is_installed_where_the_agent_reads_it(run, issuer, licence, tmp_path):
    target, source, config = (tmp_path / name for name in ("installed", "source", "config.yaml"))
    config.write_text(CONFIG.format(file=target, key=issuer[1]))
    text = licence(*TERMS, "--id", "shop-1")
    source.write_text(f"\n {text}\n")
    status, out, _ = run("license", "install", source, "--config", config)
    assert (status, out) == (0, f"installed licence shop-1 of Shop Ltd, tier pro, in {target}")
    assert target.read_text() == f"{text}\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_what_is_not_valid_is_not_installed(run, issuer, licence, tmp_path):
    target, source, config, other = (tmp_path / name for name in ("installed", "source", "config.yaml", "other.pem"))
    config.write_text(CONFIG.format(file=target, key=issuer[1]))
    run("license", "keygen", other)
    _, foreign, _ = run("license", "issue", "--signing-key", other, *TERMS, "--expires", day(1))
    for content in (foreign, licence(*TERMS)[:-8], "x"):
        source.write_text(content)
        status, _, err = run("license", "install", source, "--config", config)
        assert (status, "nothing was installed" in err) == (1, True)
    assert not target.exists()
    config.write_text(CONFIG.format(file=target, key=issuer[1]).replace(f"file: '{target}'", "key: text"))
    assert "service.license.file" in run("license", "install", source, "--config", config)[2]


def test_a_licence_is_read_from_stdin(issuer, licence):
    text = licence(*TERMS)
    command = [
        Path(sys.executable).with_name("otelwp-agent"),
        "license",
        "inspect",
        "--public-key",
        issuer[1],
        "--json",
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["valid"]


def test_no_control_store_is_needed():
    code = "import sys; sys.modules['sqlalchemy'] = None; import otelwp_agent.cli.license"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
