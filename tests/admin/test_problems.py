import json

import pytest
from pydantic import ValidationError

from otelwp_agent.admin import problems
from otelwp_agent.admin.models import ApiModel
from otelwp_agent.admin.problems import InvalidValue, ProblemDetails, ProblemError
from otelwp_agent.control.errors import ConflictError, InvalidValueError, StoreLockedError, UnknownNameError


@pytest.mark.parametrize(("error", "status"), [(UnknownNameError, 404), (ConflictError, 409), (InvalidValueError, 422)])
def test_each_refusal_has_its_status(error, status):
    problem = problems.of_operation(error("why"))
    assert (problem.status, problem.detail) == (status, "why")


def test_a_store_that_is_away_says_when_to_try_again():
    problem = problems.of_store(StoreLockedError("locked"))
    assert problem.status == 503
    assert dict(problem.headers)["Retry-After"] == "5"


def test_the_body_is_as_declared_and_lists_few_errors():
    errors = [InvalidValue(pointer=f"#/{number}", detail="no") for number in range(50)]
    body = json.loads(ProblemError(422, "why", errors=errors).body("r"))
    assert ProblemDetails.model_validate(body).title.startswith("Unprocessable")
    assert len(body["errors"]) == problems.MAX_ERRORS


def test_pointers_name_the_place():
    class Inner(ApiModel):
        n: int

    class Outer(ApiModel):
        rows: list[Inner]

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json('{"rows": [{"n": 1}, {"n": "x"}]}')
    (error,) = problems.of_body(caught.value).errors
    assert error.pointer == "#/rows/1/n"
    assert error.detail
