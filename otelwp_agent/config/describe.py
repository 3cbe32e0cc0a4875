"""Set the descriptions of configuration fields from the docstrings below them, only when they are needed.

pydantic can do this when a class is created (`use_attribute_docstrings`), but it parses the source of every class at
every start: 0.2 s and half a megabyte for texts that a running agent never shows.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def describe(model: type[BaseModel]) -> None:
    """Set the description of every field of `model` and of the models that it contains."""
    words: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            words |= _words_below_fields(base)
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            describe(inner)
        field.description = field.description or words.get(name)
    model.model_rebuild(force=True)


def block_of(annotation: Any) -> tuple[type[BaseModel], str] | None:  # noqa: ANN401 - any type there is
    """Return the block inside a field's type, and the text between the names of the field and of the block."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation, ""
    for index, part in enumerate(get_args(annotation)):
        found = block_of(part)
        if found is not None:
            origin = get_origin(annotation)
            step = "[]" if origin in (list, tuple) else ".<name>" if origin is dict and index else ""
            return found[0], step + found[1]
    return None


@cache
def _words_below_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return, by field name, the string that follows each annotated name in the body of the class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - the source of a class
    words = {}
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                words[name] = inspect.cleandoc(text)
    return words


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield every model in an annotation such as `Block | None`, `dict[str, Block]` or `Annotated[Block, …]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
