"""Parse the conditions of routing rules: a part of the Collector's transformation language (OTTL), and a little more.

::

    condition  = and { "or" and }
    and        = not { "and" not }
    not        = [ "not" ] ( "(" condition ")" | test | "true" | "false" )
    test       = path ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) value | path "in" "[" value { "," value } "]"
               | ( "IsMatch" | "IsGlob" | "HasPrefix" | "HasSuffix" ) "(" path "," text ")"
    value      = text | number | "true" | "false" | "nil" | enum
    path       = name { "." name } [ "[" text "]" ]

`in` and `IsGlob` are not in OTTL. Regular expressions run in linear time (RE2), because they are matched against
senders' data.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.routing import conditions
from otelwp_agent.routing.conditions import ORDERINGS, Condition, Pattern
from otelwp_agent.routing.paths import ENUMS, UnknownPathError, reader_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.facts import FactReader, Value

LONGEST = 4096
"""Most characters of a condition."""
DEEPEST = 50
"""Deepest nesting of parentheses."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<sign>==|!=|<=|>=|[<>(),\[\]])
    )""",
    re.VERBOSE,
)
_FUNCTIONS = ("IsMatch", "IsGlob", "HasPrefix", "HasSuffix")
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "nil": None}
_STATEMENT = re.compile(r"\s*route\(\s*\)\s*(?:where\s+(?P<condition>.+))?", re.DOTALL)


class ConditionError(Exception):
    """A condition is invalid; the message says what is wrong and where."""


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def parse(text: str, context: str, signal: Signal) -> Condition:
    """Return the condition in `text`, for a rule of this context; raise `ConditionError` if it is invalid."""
    return _Parser(text, context, signal).parse()


def condition_of_statement(statement: str) -> str:
    """Return the condition of the Collector's older form `route() where …`; raise `ConditionError` for another form."""
    found = _STATEMENT.fullmatch(statement)
    if found is None:
        message = "a statement must have the form `route() where …`: write the condition under `condition`"
        raise ConditionError(message)
    return found["condition"] or "true"


def compile_pattern(pattern: str) -> Pattern:
    """Return a compiled regular expression; raise `ConditionError` if it is invalid or RE2 is not installed."""
    try:
        import re2  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        message = "`IsMatch` and `IsGlob` need RE2: install it with `pip install otelwp-agent[routing]`"
        raise ConditionError(message) from error
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)  # type: ignore[no-any-return]
    except re2.error as error:
        reason = error.args[0] if error.args else error
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        message = f"the regular expression {json.dumps(pattern, ensure_ascii=False)} is invalid: {shown}"
        raise ConditionError(message) from error


class _Parser:
    """Parses one condition by recursive descent."""

    def __init__(self, text: str, context: str, signal: Signal) -> None:
        if len(text) > LONGEST:
            message = f"a condition has at most {LONGEST} characters, this one has {len(text)}"
            raise ConditionError(message)
        self._source = text
        self._context = context
        self._signal = signal
        self._tokens = self._scan()
        self._at = 0
        self._depth = 0

    def parse(self) -> Condition:
        found = self._or()
        if self._here.kind != "end":
            raise self._error("`and`, `or` or the end was expected")
        return found

    def _scan(self) -> list[_Token]:
        tokens, at = [], 0
        rest = len(self._source.rstrip())
        while at < rest:
            match = _TOKEN.match(self._source, at)
            if match is None or match.lastgroup is None:
                message = f"{self._source[at:].strip()[:20]!r} was not expected here (character {at + 1})"
                raise ConditionError(message)
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup), match.end()))
            at = match.end()
        return [*tokens, _Token("end", "", rest, rest)]

    @property
    def _here(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *texts: str) -> _Token | None:
        """Return the next token and step over it if it is one of `texts`, which are no quoted texts."""
        token = self._here
        if token.kind == "text" or token.text not in texts:
            return None
        self._at += 1
        return token

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._error(f"`{text}` was expected")

    def _error(self, expected: str) -> ConditionError:
        token = self._here
        found = f"not `{token.text}`" if token.text else "but the condition ends"
        return ConditionError(f"{expected}, {found} (character {token.start + 1})")

    def _since(self, start: int) -> str:
        return self._source[self._tokens[start].start : self._tokens[self._at - 1].end]

    def _or(self) -> Condition:
        return self._list("or", self._and, every=False)

    def _and(self) -> Condition:
        return self._list("and", self._not, every=True)

    def _list(self, word: str, part: Callable[[], Condition], *, every: bool) -> Condition:
        start, parts = self._at, [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else conditions.combined(self._since(start), parts, every=every)

    def _not(self) -> Condition:
        start = self._at
        if self._take("not"):
            inner = self._single()
            return conditions.negated(self._since(start), inner)
        return self._single()

    def _single(self) -> Condition:
        if self._take("("):
            self._depth += 1
            if self._depth > DEEPEST:
                message = f"parentheses are nested more than {DEEPEST} deep: use fewer"
                raise ConditionError(message)
            inner = self._or()
            self._need(")")
            self._depth -= 1
            return inner
        if word := self._take("true", "false"):
            return conditions.constant(word.text, result=word.text == "true")
        calls = self._here.kind == "name" and self._tokens[self._at + 1].text == "("
        return self._function() if calls else self._comparison()

    def _function(self) -> Condition:
        start, name = self._at, self._here.text
        if name not in _FUNCTIONS:
            raise self._error(f"one of the functions {', '.join(f'`{each}`' for each in _FUNCTIONS)} was expected")
        self._at += 1
        self._need("(")
        reader = self._path()
        self._need(",")
        argument = self._text()
        self._need(")")
        text = self._since(start)
        if name == "IsMatch":
            return conditions.matching(text, reader, compile_pattern(argument))
        if name == "IsGlob":
            return conditions.globbing(text, reader, argument, compile_pattern)
        return conditions.affixed(text, reader, argument, at_start=name == "HasPrefix")

    def _comparison(self) -> Condition:
        start, reader = self._at, self._path()
        if self._take("in"):
            values = self._values()
            return conditions.member(self._since(start), reader, values)
        sign = self._take("==", "!=", *ORDERINGS)
        if sign is None:
            raise self._error("a comparison such as `==` or `in` was expected")
        at = self._at
        value = self._value()
        text = self._since(start)
        if sign.text in {"==", "!="}:
            return conditions.equal(text, reader, value, negate=sign.text == "!=")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self._at = at
            raise self._error(f"a number or text was expected after `{sign.text}`")
        return conditions.ordered(text, reader, sign.text, value)

    def _path(self) -> FactReader:
        token = self._here
        if token.kind != "name":
            raise self._error('a path such as `attributes["key"]` was expected')
        self._at += 1
        key = None
        if self._take("["):
            key = self._text()
            self._need("]")
        try:
            return reader_of(token.text, key, self._context, self._signal)
        except UnknownPathError as error:
            message = f"{error} (character {token.start + 1})"
            raise ConditionError(message) from error

    def _values(self) -> list[Value]:
        self._need("[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need("]")
        return values

    def _value(self) -> Value:
        token = self._here
        if token.kind == "text":
            return self._text()
        if token.kind == "number":
            self._at += 1
            return int(token.text) if re.fullmatch(r"-?\d+", token.text) else float(token.text)
        if token.text in _CONSTANTS:
            self._at += 1
            return _CONSTANTS[token.text]
        if token.text in ENUMS:
            self._at += 1
            return ENUMS[token.text]
        expected = "a text in double quotes, a number, `true`, `false`, `nil` or a name like `STATUS_CODE_ERROR`"
        raise self._error(expected)

    def _text(self) -> str:
        token = self._here
        if token.kind != "text":
            raise self._error("a text in double quotes was expected")
        self._at += 1
        try:
            return str(json.loads(token.text, strict=False))
        except ValueError:
            # As in Go: `\d` is not an escape of JSON, but it is usual in regular expressions.
            return re.sub(r'\\(["\\])', r"\1", token.text[1:-1])
