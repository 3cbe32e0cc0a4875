"""Conditions: what they accept, what they mean, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import encode
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.facts import Depth, Facts
from otelwp_agent.routing.parser import ConditionError, compile_pattern, condition_of_statement, parse


def facts():
    """Return a slow failed span of the shop, as the reader of a condition sees it."""
    found = Facts(Origin("otlp", "http", "acme", {"x-region": "eu"}))
    found.resource = {b"service.name": encode("shop"), b"size": encode(5), b"list": encode(["a"])}
    found.resource[b"ok"] = encode(raw=True)
    found.scope = pb.RoutedScope(name=b"wordpress", version=b"1.2")
    found.attributes = {b"http.route": encode("/cart"), b"load": encode(0.5)}
    found.item = pb.RoutedSpan(
        name=b"GET /cart",
        kind=2,
        start_time_unix_nano=10**9,
        end_time_unix_nano=3 * 10**9,
        status=pb.Status(code=2),
    )
    return found


TRUE = [
    'request.tenant == "acme"',
    'request["X-Region"] == "eu"',
    'request["missing"] == nil',
    'resource.attributes["service.name"] == "shop"',
    'resource.attributes["service.name"] != "blog"',
    'resource.attributes["size"] == 5.0',
    'resource.attributes["size"] > 4 and resource.attributes["size"] <= 5',
    'resource.attributes["size"] != "5"',
    'resource.attributes["ok"] == true',
    'resource.attributes["ok"] != 1',
    'resource.attributes["list"] == "[\\"a\\"]"',
    'resource.attributes["missing"] != "shop"',
    'not resource.attributes["missing"] > 1',
    'resource.attributes["service.name"] in ["blog", "shop"]',
    'scope.name == "wordpress" and instrumentation_scope.version < "2"',
    'attributes["http.route"] == "/cart"',
    'span.attributes["load"] >= 0.5',
    "span.kind == SPAN_KIND_SERVER",
    "status.code == STATUS_CODE_ERROR",
    "span.root == true",
    "duration_ms > 1999.5 and duration_ms < 2000.5",
    'IsMatch(name, "^GET /c.rt$")',
    'IsMatch(name, "[A-Z]+ \\\\/\\w+")',
    'IsGlob(name, "GET *")',
    'not IsGlob(name, "GET")',
    'HasPrefix(name, "GET") and HasSuffix(name, "cart")',
    'false or (true and not (name == "x"))',
    'name == "x" or name == "GET /cart" and true',
    'not name == "x"',
]
FALSE = [
    'request.tenant == "other"',
    'resource.attributes["size"] == "5"',
    'resource.attributes["size"] < "9"',
    'resource.attributes["ok"] > 0',
    'resource.attributes["missing"] in ["x"]',
    'IsMatch(resource.attributes["size"], "5")',
    'HasPrefix(attributes["missing"], "")',
    "status.code == STATUS_CODE_OK",
    "true and false",
]


@pytest.mark.parametrize(("text", "expected"), [*((text, True) for text in TRUE), *((text, False) for text in FALSE)])
def test_meaning(text, expected):
    condition = parse(text, "span", Signal.TRACES)
    assert condition.test(facts()) is expected
    assert condition.text == text.strip()


@pytest.mark.parametrize(
    ("text", "context", "depth"),
    [
        ("true", "resource", Depth.REQUEST),
        ('request.tenant == "a"', "span", Depth.REQUEST),
        ('attributes["a"] == "b" or request.tenant == "c"', "resource", Depth.RESOURCE),
        ('scope.name == "a" and resource.attributes["b"] == 1', "resource", Depth.SCOPE),
        ('name == "a" and resource.attributes["b"] == 1', "span", Depth.ITEM),
    ],
)
def test_the_deepest_fact_decides_how_deep_it_reads(text, context, depth):
    assert parse(text, context, Signal.TRACES).depth is depth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a path such as"),
        ("name", "a comparison such as `==` or `in` was expected, but the condition ends"),
        ("name ==", "a text in double quotes"),
        ('name == "a" name', "`and`, `or` or the end was expected, not `name` (character 13)"),
        ('(name == "a"', "`)` was expected"),
        ('colour == "red"', "`colour` is unknown: the paths are"),
        ('attributes["a" == 1', "`]` was expected"),
        ("name > true", "a number or text was expected after `>`"),
        ('Concat(name, "a")', "one of the functions `IsMatch`"),
        ('IsMatch(name, "(")', "is invalid"),
        ("IsMatch(name, name)", "a text in double quotes was expected"),
        ('name == "a" ; true', "was not expected here (character 12)"),
        ('log.body == "a"', "`log.body` does not exist in traces"),
        ("(" * 60 + "true" + ")" * 60, "nested more than 50 deep"),
        ('name == "' + "a" * 5000 + '"', "at most 4096 characters"),
        ("name in []", "a text in double quotes"),
    ],
)
def test_errors_say_what_is_wrong(text, said):
    with pytest.raises(ConditionError) as caught:
        parse(text, "span", Signal.TRACES)
    assert said in str(caught.value)


def test_statements_of_the_collector():
    assert condition_of_statement("route()") == "true"
    assert condition_of_statement('route() where attributes["a"] == "b"') == 'attributes["a"] == "b"'
    with pytest.raises(ConditionError, match="route"):
        condition_of_statement("delete_key(attributes, 'x')")


def test_a_pattern_that_other_engines_need_exponential_time_for():
    assert compile_pattern("^(a+)+$").search("a" * 50_000 + "b") is None
