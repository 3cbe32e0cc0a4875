import pytest

from otelwp_agent.errors import (
    AgentError,
    ConfigError,
    ConsumeError,
    MalformedError,
    Overloaded,
    PermanentError,
    Problem,
    RetryableError,
    Severity,
    StartError,
    TooLargeError,
)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("it is wrong"), "it is wrong"),
        (Problem("it is wrong", "a.b", "f.yaml", 3, 5), "f.yaml:3:5: a.b: it is wrong"),
        (Problem("it is wrong", file="f.yaml", line=3), "f.yaml:3: it is wrong"),
        (Problem("it is wrong", "a.b"), "a.b: it is wrong"),
        (Problem("it is odd", "a.b", severity=Severity.WARNING), "warning: a.b: it is odd"),
    ],
)
def test_a_problem_says_what_is_known_of_its_place(problem, text):
    assert str(problem) == text


def test_a_config_error_says_every_problem():
    error = ConfigError([Problem("one"), Problem("two", "a")])
    assert str(error) == "one\na: two"
    assert error.problems == (Problem("one"), Problem("two", "a"))


def test_the_tree_is_as_drawn():
    assert issubclass(ConfigError, AgentError)
    assert issubclass(StartError, AgentError)
    assert issubclass(ConsumeError, AgentError)
    assert issubclass(MalformedError, PermanentError)
    assert issubclass(TooLargeError, PermanentError)
    assert issubclass(Overloaded, RetryableError)
    assert not issubclass(RetryableError, PermanentError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermanentError("no"), "permanent"),
        (MalformedError("no"), "malformed"),
        (TooLargeError("no"), "too_large"),
        (RetryableError("no"), "retryable"),
        (Overloaded("no"), "overloaded"),
        (Overloaded("no", reason="queue_full"), "queue_full"),
    ],
)
def test_reasons_are_metric_labels(error, reason):
    assert error.reason == reason
    assert type(error).reason != "queue_full", "a reason of one error is not its class's"


def test_when_to_come_back_is_what_the_other_side_said():
    assert RetryableError("no").retry_after is None
    assert Overloaded("no", retry_after=2.5).retry_after == 2.5
