import pytest

from otelwp_agent.admin.operation import ApiOperation
from otelwp_agent.admin.routes import RouteTable


def operation(method, path, name):
    return ApiOperation(method, path, name, name, lambda connection, call: None)


@pytest.fixture
def table():
    table = RouteTable()
    table.mount(
        "one",
        [
            operation("GET", "/t/{tenant}", "get"),
            operation("PATCH", "/t/{tenant}", "change"),
            operation("GET", "/t/all", "all"),
            operation("GET", "/t/{tenant}/k/{key}", "key"),
        ],
    )
    return table


def test_paths_find_their_operations(table):
    found = table.find("/t/acme")
    assert set(found.methods) == {"GET", "PATCH"}
    assert found.path == {"tenant": "acme"}
    assert table.find("/t/ac%6De").path == {"tenant": "acme"}
    assert table.find("/t/all").methods["GET"].name == "all"
    assert table.find("/t/a/k/abcdefghijklmn23").path == {"tenant": "a", "key": "abcdefghijklmn23"}


@pytest.mark.parametrize(
    "path", ["", "/", "/t", "/t/", "/t/A", "/t/a%2Fb", "/t/%ff", "/t/%00", "/t/a/k/short", "/t/acme/", "//t/acme"]
)
def test_other_paths_find_nothing(table, path):
    assert table.find(path) is None


def test_an_owner_replaces_and_removes_its_own(table):
    table.mount("two", [operation("GET", "/u", "u")])
    version = table.version
    table.mount("two", [operation("GET", "/v", "v")])
    assert table.find("/u") is None
    assert table.find("/v") is not None
    table.unmount("two")
    table.unmount("never")
    assert table.find("/v") is None
    assert table.version == version + 2
    assert len(list(table)) == 4


@pytest.mark.parametrize("double", [operation("GET", "/t/all", "new"), operation("GET", "/new", "all")])
def test_what_another_owner_has_is_refused_and_nothing_changes(table, double):
    with pytest.raises(ValueError, match="declared twice"):
        table.mount("two", [double, operation("GET", "/u", "u")])
    assert table.find("/u") is None
    assert len(list(table)) == 4
