import random

import pytest

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.statements.chain import statements_in, verify_chains
from otelwp_agent.statements.signing import sign_statement, verify_statement
from tests.statements.conftest import HOUR


def verify(texts, keys, **options):
    return verify_chains([(f"line {number}", text) for number, text in enumerate(texts, start=1)], keys, **options)


def test_chains_of_several_tenants_and_agents_are_valid_in_one_file(chain, keys):
    texts = [*chain(5), *chain(3, "other"), *chain(2, agent="edge-2")]
    report = verify(texts, keys)
    assert report.problems == []
    assert [(each.agent, each.tenant, each.numbers) for each in report.chains] == [
        ("edge-1", "other", [1, 2, 3]), ("edge-1", "shop", [1, 2, 3, 4, 5]), ("edge-2", "shop", [1, 2])
    ]  # fmt: skip
    assert report.chains[1].last.sequence == 5


def test_every_removed_statement_is_noticed(chain, keys):
    texts = chain(8)
    for place in range(7):
        problems = verify(texts[:place] + texts[place + 1 :], keys).problems
        assert f"tenant shop, agent edge-1: 1 missing: {place + 1}" in problems
    assert verify(texts[:-1], keys).problems == [], "the end alone looks whole"
    assert verify(texts[:-1], keys, last=8).problems == ["tenant shop, agent edge-1: 1 missing: 8"]
    (problem,) = verify(texts[:-1], keys, until=9 * HOUR).problems
    assert "the last statement ends at 28800.0, before the given time 32400.0" in problem
    assert verify(texts, keys, last=8, until=9 * HOUR).problems == []


def test_every_pair_in_the_wrong_order_is_noticed(chain, keys):
    texts = chain(6)
    for one in range(5):
        swapped = list(texts)
        swapped[one], swapped[one + 1] = swapped[one + 1], swapped[one]
        assert verify(swapped, keys).problems == [
            f"line {one + 2}: statement {one + 1} of tenant shop, agent edge-1 is out of order: it follows {one + 2}"
        ]


def test_every_altered_statement_is_noticed_also_at_random_places(chain, keys):
    texts, chance = chain(6), random.Random(7)
    for _ in range(200):
        line = chance.randrange(6)
        text = texts[line]
        place = chance.randrange(len(text))
        other = chance.choice([letter for letter in "ABCabc012-_" if letter != text[place]])
        altered = [*texts[:line], text[:place] + other + text[place + 1 :], *texts[line + 1 :]]
        assert any(problem.startswith(f"line {line + 1}: ") for problem in verify(altered, keys).problems)


def test_a_statement_that_was_signed_again_with_other_figures_breaks_the_chain(chain, key, keys):
    texts = chain(4)
    statement = verify_statement(texts[1], keys)
    figures = statement.pipelines["traces"].model_copy(update={"delivered": 8, "closing": 1})
    forged = sign_statement(statement.model_copy(update={"pipelines": {"traces": figures}}), key)
    problems = verify([texts[0], forged, *texts[2:]], keys).problems
    assert any("another statement 2 was replaced" in problem for problem in problems)
    assert any("begins with 2 items in flight, the one before ends with 1" in problem for problem in problems)


def test_figures_that_do_not_add_up_are_noticed_although_they_are_signed(chain, key, keys):
    statement = verify_statement(chain(1)[0], keys)
    figures = statement.pipelines["traces"].model_copy(update={"delivered": 6})
    text = sign_statement(statement.model_copy(update={"pipelines": {"traces": figures}}), key)
    assert verify([text], keys).problems == ["line 1: pipeline traces: 1 items are neither settled nor in flight"]


def test_repeated_and_contradicting_statements_are_noticed(chain, key, keys):
    texts = chain(2)
    assert verify([*texts, texts[1]], keys).problems == ["line 3: statement 2 of tenant shop, agent edge-1 is repeated"]
    other = sign_statement(verify_statement(texts[1], keys).model_copy(update={"end": 99999.0}), key)
    assert "line 3: statement 2 of tenant shop, agent edge-1 contradicts another of this number" in (
        verify([*texts, other], keys).problems
    )


def test_a_file_may_begin_later_if_that_is_said(chain, keys):
    texts = chain(5)[2:]
    assert verify(texts, keys).problems == ["tenant shop, agent edge-1: 2 missing: 1, 2"]
    assert verify(texts, keys, first=3).problems == []


def test_many_missing_numbers_are_shortened(chain, keys):
    texts = chain(30)
    (problem,) = [each for each in verify([texts[0], texts[-1]], keys).problems if "missing" in each]
    assert problem == "tenant shop, agent edge-1: 28 missing: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 …"


def test_a_first_statement_names_none_before_it(chain, key, keys):
    first = verify_statement(chain(1)[0], keys)
    text = sign_statement(first.model_copy(update={"previous": "a" * 64}), key)
    assert verify([text], keys).problems == [
        "line 1: statement 1 of tenant shop, agent edge-1 is the first one, but names one before it"
    ]


def test_a_key_that_was_replaced_verifies_with_both(chain, key, keys):
    texts, other = chain(3), generate_key()
    statement = verify_statement(texts[2], keys)
    texts[2] = sign_statement(statement, other)
    text = public_text(other)
    assert verify(texts, {**keys, key_id(text): text}).problems == []
    assert any("which was not given" in problem for problem in verify(texts, keys).problems)


@pytest.mark.parametrize("data", ["", "\n \n"])
def test_a_file_without_statements_is_a_problem(data, keys):
    assert verify_chains(statements_in(data, "file"), keys).problems == ["there are no statements"]


def test_lines_are_named(chain):
    assert statements_in("a\n\n b \r\n", "file") == [("file, line 1", "a"), ("file, line 3", "b")]
