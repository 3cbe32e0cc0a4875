"""Validate a part of a document against a model, and turn pydantic's errors into problems with positions.

Problems say in plain words what is wrong, where it is in the source and what the model accepts. Values that came from
`${…}` are never shown: messages name the reference instead.
"""

from __future__ import annotations

import types
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from otelwp_agent.config.describe import describe
from otelwp_agent.config.document import Node, Path, show_path
from otelwp_agent.config.types import Ignored
from otelwp_agent.errors import Problem, Severity
from otelwp_agent.telemetry.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

_SHORTEST_HIDDEN = 4
"""Characters of the shortest secret value that is replaced everywhere in a message. Replacing shorter ones would garble
the message: they are replaced only in quotes."""

_LONGEST_SHOWN = 40


def check(model: type[M], node: Node, path: Path = ()) -> tuple[M | None, list[Problem]]:
    """Load `node` (at `path`) as `model`; return the result, or `None` if it is invalid, and errors and warnings."""
    as_text: frozenset[Node] = frozenset()
    while True:
        try:
            loaded = model.model_validate(node.data(as_text))
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
            # Fields of type text use the value of a variable without YAML conversion (the Collector's rule).
            again = {at for detail in details for at in [_deepest(node, detail["loc"])[0]] if at.text is not None}
            if again <= as_text:
                problems = [*_explain_all(details, model, node, path)]
                reported = {problem.path for problem in problems}
                more = [problem for problem in _truths_for_numbers(model, node, path) if problem.path not in reported]
                return None, problems + more
            as_text |= again
        else:
            wrong = [*_truths_for_numbers(model, node, path)]
            return (None, wrong) if wrong else (loaded, [*_warnings(model, node, path)])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean …?` with the name from `known` that is similar to `name`, or "" if none is."""
    names = sorted(known)
    folded = {other.lower().replace("-", "_"): other for other in names}
    close = get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return f": did you mean `{folded[close[0]]}`?" if close else ""


def listing(names: Iterable[str], word: str = "or") -> str:
    """Return the names as a list in words: `a`, `b` or `c`."""
    shown = [f"`{name}`" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}" if shown else "nothing"


def kind_of(node: Node) -> str:
    """Return the kind of a value in words: "a map", "the number 5"."""
    value = node.value
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if node.written is not None:
        return f"the value of `{node.written}`"
    if isinstance(value, bool):
        return f"the truth value `{str(value).lower()}`"
    return f"the number {value}" if isinstance(value, int | float) else "text"


def _explain_all(details: list[ErrorDetails], model: type[BaseModel], node: Node, path: Path) -> Iterator[Problem]:
    """Yield one problem for each place; the errors that several branches of a union have for one value are merged."""
    by_place: dict[tuple[Path, bool], tuple[Node, list[str]]] = {}
    for detail in details:
        at, found, rest = _follow(node, detail["loc"])
        if at.broken or any(below.broken for below in at.walk()):
            continue
        missing = detail["type"] == "missing"
        unknown = detail["type"] == "extra_forbidden"
        if missing:
            name = str(detail["loc"][-1])
            parent = found if rest else found[:-1]  # `name:` without a value exists as a node
            message = _missing(model, parent, name)
            found = (*parent, name)
        elif unknown:
            message = _unknown_key(model, found)
        else:
            message = hide(_words(detail, at), at)
            at, found = _blamed(at, found, message)
            first, _, remainder = message.partition(": ")
            if found and show_path(found).endswith(first):  # the position already names it
                message = remainder
        messages = by_place.setdefault((found, missing or unknown), (at, []))[1]
        if message not in messages:
            messages.append(message)
    for (found, at_key), (at, messages) in by_place.items():
        yield at.problem("; or ".join(messages), (*path, *found), at_key=at_key)


def _follow(node: Node, loc: tuple[str | int, ...]) -> tuple[Node, Path, Path]:
    """Return the deepest node on pydantic's path `loc`, the path to it, and the parts of `loc` after it.

    `loc` has parts that are not keys: the branches of a union, `[key]`.
    """
    found: Path = ()
    rest: Path = ()
    for part in loc:
        child = node.get(part)
        if child is None:
            rest = (*rest, part)
        else:
            node, found, rest = child, (*found, part), ()
    return node, found, rest


def _deepest(node: Node, loc: tuple[str | int, ...]) -> tuple[Node, Path]:
    at, found, _ = _follow(node, loc)
    return at, found


def _blamed(at: Node, found: Path, message: str) -> tuple[Node, Path]:
    """Return node and path of the key that `message` begins with (`batch.max_size (5) is …`), or `at` and `found`."""
    first = message.split(maxsplit=1)[0].strip("`'\",:()") if message else ""
    for part in first.split("."):
        child = at.get(part)
        if child is None:
            return at, found
        at, found = child, (*found, part)
    return at, found


def hide(message: str, at: Node) -> str:
    """Replace values in `message` that came from `${…}` by the reference, and redact the secrets of URLs."""
    for node in at.walk():
        if node.written is None:
            continue
        for value in {str(node.value), node.text or ""} - {""}:
            for shown in (repr(value), f'"{value}"', f"`{value}`"):
                message = message.replace(shown, f"the value of `{node.written}`")
            if len(value) >= _SHORTEST_HIDDEN:
                message = message.replace(value, node.written)
    return redact_text(message)


def _words(detail: ErrorDetails, at: Node) -> str:
    """Return a message that says what is wrong with a value and what would be right."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", detail["msg"]))
    if kind in ("literal_error", "enum"):
        return _choice(str(context.get("expected", "")), at)
    simple = _WANTED.get(kind)
    if simple is not None:
        return f"this must be {simple}, not {_shown(at)}"
    if kind == "string_type":
        quoted = isinstance(at.value, int | float) and at.written is None
        return f"this must be text, not {kind_of(at)}" + (": put it in quotes" if quoted else "")
    bound = next((words.format(**context) for start, words in _BOUNDS if kind == start), None)
    if bound is not None:
        scalar = isinstance(at.value, str | int | float) and at.written is None
        return f"this must {bound}" + (f", not {at.value}" if scalar and len(str(at.value)) <= _LONGEST_SHOWN else "")
    message = detail["msg"].removeprefix("Input should ").removeprefix("Value error, ")
    return message if message == detail["msg"] else f"this should {message}"


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "`true` or `false`",
    "bool_parsing": "`true` or `false`",
    "list_type": "a list (`[a, b]`, or a line `- a` for each)",
    "tuple_type": "a list (`[a, b]`, or a line `- a` for each)",
    "set_type": "a list (`[a, b]`, or a line `- a` for each)",
    "frozen_set_type": "a list (`[a, b]`, or a line `- a` for each)",
    "dict_type": "a map (a line `key: value` for each)",
    "model_type": "a map (a line `key: value` for each)",
    "model_attributes_type": "a map (a line `key: value` for each)",
    "none_required": "left out",
}
_BOUNDS = (
    ("greater_than", "be above {gt:g}"),
    ("greater_than_equal", "be at least {ge:g}"),
    ("less_than", "be below {lt:g}"),
    ("less_than_equal", "be at most {le:g}"),
    ("too_short", "have at least {min_length}"),
    ("too_long", "have at most {max_length}"),
    ("string_too_short", "have at least {min_length} characters"),
    ("string_too_long", "have at most {max_length} characters"),
    ("string_pattern_mismatch", "match the pattern `{pattern}`"),
    ("multiple_of", "be a multiple of {multiple_of:g}"),
)


def _shown(at: Node) -> str:
    """Return a scalar as written if it is short and not from `${…}`; otherwise its kind in words."""
    if isinstance(at.value, str) and at.written is None and len(at.value) <= _LONGEST_SHOWN:
        return f"{redact_text(at.value)!r}"
    return kind_of(at)


def _choice(expected: str, at: Node) -> str:
    """Return a message that lists the choices; `expected` is pydantic's `'a', 'b' or 'c'`."""
    choices = [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
    shown = [choice or '""' for choice in choices]
    hint = did_you_mean(at.value, filter(None, choices)) if isinstance(at.value, str) and at.written is None else ""
    if isinstance(at.value, int | float) and not isinstance(at.value, bool) and str(at.value) in choices:
        return f'this must be text: put it in quotes (`"{at.value}"`)'
    return f"this must be {listing(shown)}, not {_shown(at)}{hint}"


def _missing(model: type[BaseModel], found: Path, name: str) -> str:
    for parent in _models_at(model, found):
        describe(parent)
        field = next((f for key, f in _fields(parent).items() if key == name), None)
        if field is not None and field.description:
            return f"`{name}` is required: {_first_sentence(field.description)}"
    return f"`{name}` is required"


def _first_sentence(text: str) -> str:
    text = " ".join(text.split())
    sentence = text.split(". ")[0].rstrip(".")
    return sentence[0].lower() + sentence[1:] if sentence[1:2].islower() else sentence


def _unknown_key(model: type[BaseModel], found: Path) -> str:
    *parents, key = found
    names = {name for parent in _models_at(model, tuple(parents)) for name in _fields(parent)}
    message = f"there is no `{key}` here"
    elsewhere = [
        show_path(at) for parent in _models_at(model, tuple(parents)) for at in _sections_with(parent, str(key))
    ]
    if hint := did_you_mean(str(key), names):
        return message + hint
    if elsewhere:
        return f"{message}: it belongs under {listing(elsewhere)}"
    return f"{message}: these keys are known: {', '.join(sorted(names))}" if names else f"{message}: it has no keys"


def _sections_with(model: type[BaseModel], key: str, depth: int = 3) -> Iterator[Path]:
    """Yield the paths of the sections below `model` that have `key`, to `depth` levels."""
    for name, field in _fields(model).items():
        for child in _models(field.annotation):
            if key in _fields(child):
                yield (name,)
            elif depth > 1:
                yield from ((name, *section) for section in _sections_with(child, key, depth - 1))


@cache
def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's fields by their names in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """Return the models that are possible at `path`."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [found for annotation in annotations for found in _below(annotation, part)]
    return [found for annotation in annotations for found in _models(annotation)]


def _below(annotation: Any, part: str | int) -> Iterator[Any]:  # noqa: ANN401 - annotations are of any type
    """Yield the annotations of the value at key or index `part` of a value with this annotation."""
    for option in _options(annotation):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(option, type) and issubclass(option, BaseModel):
            if (field := _fields(option).get(str(part)) or option.model_fields.get(str(part))) is not None:
                yield field.annotation
        elif origin is dict and arguments:
            yield arguments[1]
        elif origin in (list, tuple, set, frozenset) and arguments:
            yield arguments[0]


def _options(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - annotations are of any type
    """Yield the branches of a union, without their `Annotated` metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _options(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - annotations are of any type
    return [
        option
        for option in _options(annotation)
        if isinstance(option, type) and get_origin(option) is None and issubclass(option, BaseModel)
    ]


def settings(annotation: Any, node: Node, path: Path) -> Iterator[tuple[FieldInfo, Node, Path]]:  # noqa: ANN401
    """Yield every setting in `node` as its field, its node and its path."""
    for option in _options(annotation):
        is_model = option in _models(option)
        for key, child in node.children():
            field = _fields(option).get(str(key)) or option.model_fields.get(str(key)) if is_model else None
            if field is not None:
                yield field, child, (*path, key)
            for below in _below(option, key):
                yield from settings(below, child, (*path, key))


def _warnings(model: type[BaseModel], node: Node, path: Path) -> Iterator[Problem]:
    """Yield a warning for every setting that is accepted but has no effect."""
    for field, child, at in settings(model, node, path):
        value = child.data()
        for mark in field.metadata:
            if isinstance(mark, Ignored) and value != field.default and mark.concerns(value):
                message = mark.why if mark.values or mark.when else f"this has no effect here: {mark.why}"
                yield child.problem(message, at, at_key=True, severity=Severity.WARNING)


def _truths_for_numbers(model: type[BaseModel], node: Node, path: Path) -> Iterator[Problem]:
    """Yield an error for every `true` or `false` in place of a number, which pydantic would read as 1 or 0."""
    for field, child, at in settings(model, node, path):
        options = {*_options(field.annotation)}
        if isinstance(child.value, bool) and options & {int, float} and not options & {bool, str, Any}:
            yield child.problem(f"this must be a number, not {kind_of(child)}", at)
