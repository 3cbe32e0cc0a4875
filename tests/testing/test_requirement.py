import pytest

from otelwp_agent.testing.requirement import RequirementError, require


def test_a_requirement_that_is_not_met_says_what_happened():
    require(condition=True, happened="nothing")
    with pytest.raises(RequirementError, match="it kept the batch"):
        require(condition=[], happened="it kept the batch")
