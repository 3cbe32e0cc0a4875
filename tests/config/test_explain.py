from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from otelwp_agent.config.document import Node
from otelwp_agent.config.expand import Expander
from otelwp_agent.config.explain import check, did_you_mean, listing
from otelwp_agent.config.parse import parse
from otelwp_agent.config.types import Duration, Ignored, Secret


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Item(Strict):
    key: str
    """Name of the thing. And more."""
    weight: int = Field(1, ge=0, lt=10)


class Sub(Strict):
    level: Literal["low", "high", "1.2"] = "low"
    deep: Item | None = None
    when: Duration = 0.0
    old: Annotated[int, Ignored("it is old")] = 0
    odd: Annotated[str, Ignored("odd is even", values=("odd",))] = ""


class Model(Strict):
    sub: Sub = Sub()
    items: list[Item] = []
    named: dict[str, Sub] = {}
    either: int | list[int] = 0
    token: Secret = Secret("")
    text: str = ""
    flag: bool = False
    small: int = 0
    large: int = 9
    real_name: str = Field("", alias="alias")
    pattern: str = Field("a", pattern="^a+$")
    names: list[str] = Field(["x"], min_length=1)

    @model_validator(mode="after")
    def _order(self):
        if self.small > self.large:
            message = f"small ({self.small}) is above large ({self.large})"
            raise ValueError(message)
        return self

    @field_validator("text")
    @classmethod
    def _no_bang(cls, value):
        if "!" in value:
            message = f"{value!r} has a bang"
            raise ValueError(message)
        return value


def run(text, **env):
    found = []
    node = parse(text, "a.yaml", found)
    Expander(env, found).expand(node)
    assert found == []
    loaded, problems = check(Model, node, ("top",))
    return loaded, [str(problem).removeprefix("a.yaml:") for problem in problems]


def told(text, **env):
    loaded, problems = run(text, **env)
    assert loaded is None
    return problems


def test_what_is_right_loads():
    loaded, problems = run("sub: {level: high}\nitems: [{key: a}]\nalias: x")
    assert (loaded.sub.level, loaded.items[0].key, loaded.real_name, problems) == ("high", "a", "x", [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sbu: 1", "1:1: top.sbu: there is no `sbu` here: did you mean `sub`?"),
        ("sub: {when: 5}", "1:13: top.sub.when: a duration needs a unit: write `5s` or `5ms`"),
        ("Either: x", "1:1: top.Either: there is no `Either` here: did you mean `either`?"),
        ("sub: {level: hihg}", "not 'hihg': did you mean `high`?"),
        ("sub: {level: 1.2}", '1:14: top.sub.level: this must be text: put it in quotes (`"1.2"`)'),
        ("sub: {level: 7}", "this must be `low`, `high` or `1.2`, not the number 7"),
        ("sub: [1]", "1:6: top.sub: this must be a map (a line `key: value` for each), not a list"),
        ("items: [{weight: 3}]", "1:9: top.items[0].key: `key` is required: name of the thing"),
        ("items: [{key: a}, {key: b, weight: 10}]", "1:36: top.items[1].weight: this must be below 10, not 10"),
        ("items: {key: a}", "1:8: top.items: this must be a list (`[a, b]`, or a line `- a` for each), not a map"),
        ("named: {x: {deep: {key: [1]}}}", "1:25: top.named.x.deep.key: this must be text, not a list"),
        ("named: {x: {leve: low}}", "1:13: top.named.x.leve: there is no `leve` here: did you mean `level`?"),
        ("weight: 1", "1:1: top.weight: there is no `weight` here: it belongs under `sub.deep`"),
        ("xyzzy: 1", "1:1: top.xyzzy: there is no `xyzzy` here: these keys are known: alias, either, flag"),
        ("text: 0.5", "1:7: top.text: this must be text, not the number 0.5: put it in quotes"),
        ("text: true", "this must be text, not the truth value `true`: put it in quotes"),
        ("text: a!", "1:7: top.text: 'a!' has a bang"),
        ("flag: maybe", "1:7: top.flag: this must be `true` or `false`, not 'maybe'"),
        ("small: 10\nlarge: 5", "1:8: top.small: small (10) is above large (5)"),
        ("small: true", "1:8: top.small: this must be a number, not the truth value `true`"),
        ("items: [{key: a, weight: false}]", "1:26: top.items[0].weight: this must be a number, not the truth value"),
        ("small: 1.5", "1:8: top.small: this must be a whole number, not the number 1.5"),
        ("pattern: b", "1:10: top.pattern: this must match the pattern `^a+$`, not b"),
        ("names: []", "1:8: top.names: this must have at least 1"),
        ("token: 5", "1:8: top.token: this must be text, not the number 5: put it in quotes"),
    ],
)
def test_what_is_wrong_is_said_in_words_with_its_place(text, problem):
    (only,) = told(text)
    assert problem in only


def test_branches_of_a_union_are_one_problem():
    (only,) = told("either: x")
    assert only.startswith("1:9: top.either: this must be a whole number, not 'x'; or this must be a list")


def test_several_problems_at_once():
    assert len(told("sbu: 1\ntext: 5\nitems: [{}, {key: 1}]\nsmall: true")) == 5


@pytest.mark.parametrize("held", ["5", "0123", "true", "[a]", "{a: 1}", "1e3", "null", ""])
def test_text_out_of_a_variable_stays_text(held):
    loaded, _ = run("text: ${X}\ntoken: ${X}\nitems: [{key: '${X}'}]", X=held)
    assert (loaded.text, loaded.token.get_secret_value(), loaded.items[0].key) == (held, held, held)


def test_numbers_lists_and_choices_out_of_variables():
    loaded, _ = run("small: ${N}\neither: ${L}\nsub: {level: '${V}'}", N="5", L="[1, 2]", V="1.2")
    assert (loaded.small, loaded.either, loaded.sub.level) == (5, [1, 2], "1.2")


def test_values_out_of_variables_are_never_shown():
    lines = told(
        "text: 'x ${S}!'\nflag: ${S}\nsub: {when: '${S}', level: '${S}'}\nsmall: ${S}\npattern: '${S}'", S="hunter2"
    )
    assert len(lines) == 6
    assert not any("hunter2" in line for line in lines)
    assert "2:7: top.flag: this must be `true` or `false`, not the value of `${S}`" in lines
    assert any(
        "top.sub.when: the value of `${S}` is not a duration: write a number and a unit" in line for line in lines
    )


def test_what_could_not_be_replaced_is_not_said_again():
    found = []
    node = parse("small: ${NONE}\nflag: 7", "a.yaml", found)
    Expander({}, found).expand(node)
    loaded, problems = check(Model, node)
    assert (loaded, len(found)) == (None, 1)
    assert [problem.path for problem in problems] == ["flag"]


def test_what_has_no_effect_is_a_warning():
    loaded, problems = run("sub: {old: 5, odd: odd}\nnamed: {x: {old: 0, odd: even}}")
    assert loaded is not None
    assert problems == [
        "warning: a.yaml:1:7: top.sub.old: this has no effect here: it is old",
        "warning: a.yaml:1:15: top.sub.odd: odd is even",
    ]


def test_words():
    assert did_you_mean("OTLP-http", ["otlp_http", "debug"]) == ": did you mean `otlp_http`?"
    assert did_you_mean("xyz", ["otlp_http"]) == ""
    assert [listing([]), listing(["a"]), listing("abc"), listing("ab", "and")] == [
        "nothing",
        "`a`",
        "`a`, `b` or `c`",
        "`a` and `b`",
    ]


def test_a_null_document_is_a_section_with_nothing_in_it():
    place = parse("a: 1", "a.yaml", []).at
    loaded, problems = check(Item, Node(None, place, place))
    assert loaded is None
    assert "this must be a map" in problems[0].message
