"""What README.md, docs/ and examples/ say is true: configurations load, commands run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import docs
from otelwp_agent.cli import main
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.testing.examples import plan_of
from tests.kit.agent import Agent
from tests.kit.snippets import fenced

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples/docker-compose.yaml"})
WRITTEN = [page for page in PAGES if not page.read_text("utf-8").startswith("<!-- Written by")]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
NOT_RUN_TO_THE_END = ("run", "generate", "new")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(language, pages=tuple(PAGES)):
    found = [(page, line, block) for page in pages for line, block in fenced(page.read_text("utf-8"), language)]
    return pytest.mark.parametrize(
        "block", [pytest.param(block, id=f"{name_of(page)}:{line}") for page, line, block in found]
    )


def commands():
    """Return every command line in a shell block, as words."""
    for page in WRITTEN:
        for line, block in fenced(page.read_text("utf-8"), "sh"):
            for command in block.replace("\\\n", " ").splitlines():
                words = shlex.split(command, comments=True)
                if words:
                    yield pytest.param(words, id=f"{name_of(page)}:{line} {words[0]} {' '.join(words[1:2])}")


every_command = pytest.mark.parametrize("words", list(commands()))


@blocks("yaml")
def test_every_configuration_loads(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_of(block, tmp_path)
    assert [str(warning) for warning in plan.warnings] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_every_example_loads_without_a_warning(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = make_plan(load([str(example)], (), {}), Catalog())
    assert [str(warning) for warning in plan.warnings] == []
    assert plan.unused == {}


@pytest.mark.parametrize("page", ["configuration", "tiers"])
def test_the_messages_that_are_shown_are_those_that_come(page, tmp_path, monkeypatch, capfd):
    texts = [block for _, block in fenced((ROOT / f"docs/topics/{page}.md").read_text("utf-8"), "text")]
    (wrong,) = [block for block in texts if block.startswith("receivers:")]
    (said,) = [block for block in texts if block.startswith("agent.yaml:")]
    (tmp_path / "agent.yaml").write_text(wrong, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main._run(["validate", "--config", "agent.yaml"]) == 1
    assert capfd.readouterr().err.startswith(said)


@every_command
def test_every_command_is_one_that_exists(words, monkeypatch, capfd):
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert {argument for argument in arguments if "=" not in argument} <= set(targets)
        return
    assert program.removeprefix(".venv/bin/") == "otelwp-agent"
    if arguments[0] in NOT_RUN_TO_THE_END:
        return  # the tests below run them
    monkeypatch.chdir(ROOT)
    assert main._run(arguments) == 0
    assert capfd.readouterr().out


def test_the_commands_of_the_control_store(tmp_path, monkeypatch, capfd):
    """Run them in their order on one store; `KEY_ID` is the id of the key that was created before."""
    lines = [
        line.removeprefix("$ otelwp-agent ")
        for _, block in fenced((ROOT / "docs/topics/control-store.md").read_text("utf-8"), "console")
        for line in block.splitlines()
        if line.startswith("$ otelwp-agent")
    ]
    monkeypatch.setenv("OTELWP_CONTROL_STORE", f"sqlite:///{tmp_path}/control.db")
    key = ""
    for line in lines:
        words = shlex.split(line.replace("KEY_ID", key))
        assert main._run(words) == 0, line
        out = capfd.readouterr().out
        assert out
        if words[:2] == ["api-keys", "create"]:
            key = out.split("_")[2]
    assert key


def test_the_commands_of_licences(tmp_path, monkeypatch, capfd):
    """Run them in their order in one folder; `PUBLIC_KEY` is what `keygen` has printed."""
    lines = [
        line.removeprefix("$ otelwp-agent ")
        for _, block in fenced((ROOT / "docs/topics/licences.md").read_text("utf-8"), "console")
        for line in block.splitlines()
    ]
    monkeypatch.setenv("OTELWP_CONTROL_STORE", f"sqlite:///{tmp_path}/control.db")
    monkeypatch.chdir(tmp_path)
    assert main._run(["control", "migrate"]) == 0
    capfd.readouterr()
    public_key = ""
    for line in lines:
        command, _, file = line.replace("PUBLIC_KEY", public_key).partition(" > ")
        assert main._run(shlex.split(command)) == 0, line
        out = capfd.readouterr().out
        assert out
        if file:
            Path(file).write_text(out, "utf-8")
        elif command.startswith("license keygen"):
            public_key = out.strip()
    assert public_key


def test_the_commands_for_sealing_keys(tmp_path, capfd):
    page = (ROOT / "docs/topics/sealed-envelope.md").read_text("utf-8")
    lines = [line for _, block in fenced(page, "console") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.removeprefix("$ otelwp-agent ").replace("/etc/otelwp", str(tmp_path)))
        assert main._run(words) == 0, line
        assert capfd.readouterr().out
    assert {path.name for path in (tmp_path / "sealing").iterdir()} == {
        "opening-keys.json",
        "key-set.jws",
        "signing.key",
    }


def test_the_quickstart_takes_what_generate_sends(tmp_path, monkeypatch, capfd):
    """`make run` and, in another terminal, every `generate` that a page shows."""
    quickstart = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text("utf-8"))
    protocols = quickstart["receivers"]["otlp"]["protocols"]
    for protocol in protocols.values():
        protocol["endpoint"] = "127.0.0.1:0"
    for extension in quickstart["extensions"].values():
        extension["endpoint"] = "127.0.0.1:0"
    shown = [each.values[0] for each in commands() if "generate" in each.values[0]]
    assert shown
    monkeypatch.chdir(ROOT)
    with Agent(yaml.safe_dump(quickstart), tmp_path) as agent:
        for _, *arguments in shown:
            transport = "grpc" if "grpc" in arguments else "http"
            faster = ["--rate", "0", "--endpoint", f"127.0.0.1:{agent.port(transport)}"]
            assert main._run([*arguments, *faster]) == 0, capfd.readouterr().err
        assert agent.stop() == 0


def anchors(page):
    return {docs.anchor(heading) for heading in HEADING.findall(page.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    broken = []
    for target in LINK.findall(page.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and file.suffix == ".md" and fragment not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_found():
    """Each page is linked from another one."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(page.read_text("utf-8"))
        if not target.startswith("http")
    }
    unfound = [name_of(page) for page in PAGES if page not in linked and page.name != "README.md"]
    assert unfound == []


def test_the_examples_are_named_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [example.name for example in EXAMPLES if f"examples/{example.name}" not in text] == []


def test_the_flow_in_the_readme_names_what_ships():
    """Every type that the picture shows exists."""
    (_, picture) = fenced((ROOT / "README.md").read_text("utf-8"), "mermaid")[0]
    catalog = Catalog()
    known = {factory.type for factory in catalog.factories()}
    for type_ in ("otlp", "memory_limiter", "probabilistic_sampler", "batch", "otlp_http", "file", "forward"):
        assert type_ in picture
        assert type_ in known
