import pytest

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.statements.signing import digest, sign_statement
from otelwp_agent.statements.statement import DeliveryStatement, PipelineFigures

HOUR = 3600.0


@pytest.fixture(scope="session")
def key():
    return generate_key()


@pytest.fixture(scope="session")
def keys(key):
    text = public_text(key)
    return {key_id(text): text}


@pytest.fixture(scope="session")
def chain(key):
    """Return a function that makes the signed statements of a tenant, each with 10 items."""

    def make(count, tenant="shop", agent="edge-1"):
        texts, previous = [], ""
        for number in range(1, count + 1):
            figures = PipelineFigures(
                opening=number - 1, accepted=10, delivered=7, sampled_out=1, dropped={"malformed": 1}, closing=number
            )
            statement = DeliveryStatement(
                agent=agent,
                tenant=tenant,
                sequence=number,
                previous=previous,
                begin=HOUR * number,
                end=HOUR * (number + 1),
                pipelines={"traces": figures},
            )
            texts.append(sign_statement(statement, key))
            previous = digest(texts[-1])
        return texts

    return make
