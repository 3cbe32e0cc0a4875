import pytest
from pydantic import TypeAdapter, ValidationError

from otelwp_agent.admin.models import Attributes, Name, PageQuery, Title
from otelwp_agent.control.errors import InvalidValueError
from otelwp_agent.control.operations import values

NAMES = ["a", "0", "a-b", "a.b_c", "a" * 63, "", "-a", "a-", "A", "ä", "a b", "a\n", "a" * 64, "a\0"]
TITLES = ["Acme", "Ünï 漢字", "x" * 200, "", " ", "a\nb", "x" * 201, "\u202eabc", "a\0b"]


@pytest.mark.parametrize("text", NAMES)
def test_names_are_those_of_the_operations(text):
    assert accepts(Name, text) == allowed(values.name, text)


@pytest.mark.parametrize("text", TITLES)
def test_titles_are_those_of_the_operations(text):
    assert accepts(Title, text) == allowed(values.title, text)


@pytest.mark.parametrize(
    "attributes", [{}, {"a": ""}, {"": "a"}, {"a": "x" * 257}, {"a\n": "b"}, {f"{number}": "" for number in range(33)}]
)
def test_attributes_are_those_of_the_operations(attributes):
    def check(value, what):
        return values.attributes(value)

    assert accepts(Attributes, attributes) == allowed(check, attributes)


@pytest.mark.parametrize("limit", ["0", "501", "1_0", " 1", "1.0", "+1", "\u0661", "9" * 5000])
def test_page_sizes_are_digits_within_the_limits(limit):
    with pytest.raises(ValidationError):
        PageQuery(limit=limit)
    assert PageQuery(limit="500").limit == 500


def accepts(type_, value):
    try:
        TypeAdapter(type_).validate_python(value)
    except ValidationError:
        return False
    return True


def allowed(check, value):
    try:
        check(value, "text")
    except InvalidValueError:
        return False
    return True
