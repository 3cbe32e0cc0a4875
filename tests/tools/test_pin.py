import re
import tomllib

import pin


def test_only_names_and_versions_are_written():
    lines = pin.pins().splitlines()
    assert [line.partition("==")[0] for line in lines] == sorted(line.partition("==")[0] for line in lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!+]+", line) for line in lines)


def test_the_project_and_pip_are_left_out():
    names = {line.partition("==")[0] for line in pin.pins().splitlines()}
    assert {"pydantic", "pytest", "types-pyyaml"} <= names
    assert not {"otelwp-agent", "pip"} & names


def test_every_dependency_is_pinned():
    project = tomllib.loads((pin.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    pinned = {line.partition("==")[0] for line in (pin.ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    names = {pin.normalize(re.split(r"[<>=!~ ;\[]", each)[0]) for each in wanted}
    assert names - {"otelwp-agent"} <= pinned, "`dev` contains other extras of this project"
