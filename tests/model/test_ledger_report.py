import json

import pytest

from otelwp_agent.model.ledger_report import LedgerLine, Report, totals


def line(**figures):
    return LedgerLine("pipeline", "traces", **figures)


def test_a_line_that_balances_has_no_problems():
    good = line(
        accepted=10, delivered=4, sampled_out=3, filtered=1, dropped=1, in_flight=1, reasons={"retries_exhausted": 1}
    )
    assert good.balance == 0
    assert good.problems() == []
    assert Report([good]).balances


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"accepted": 10, "delivered": 7}, "pipeline traces: 3 items are missing"),
        ({"accepted": 10, "delivered": 12}, "2 more items are settled or in flight than were accepted"),
        ({"accepted": 10, "delivered": 12, "in_flight": -2}, "in_flight is below 0 (-2)"),
        ({"accepted": 2, "dropped": 2, "reasons": {"shutdown": 1}}, "2 items are dropped, but 1 have a reason"),
    ],
)
def test_what_is_wrong_is_said_with_the_line_and_by_how_much(figures, words):
    report = Report([line(**figures)])
    assert not report.balances
    assert words in "\n".join(report.all_problems())


def test_a_problem_beside_the_lines_unbalances():
    assert not Report([line()], ["3 entries of the journal cannot be read"]).balances


def test_json_and_back():
    report = Report(
        [line(accepted=10, delivered=7, reasons={}), LedgerLine("tenant", "", accepted=1, dropped=1, reasons={"x": 1})],
        ["something else"],
        "the agent with process id 1",
    )
    data = json.loads(json.dumps(report.to_json()))
    assert data["balances"] is False
    assert data["lines"][0]["balance"] == 3
    assert len(data["problems"]) == 2
    assert Report.from_json(data) == report


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"lines": 1, "problems": []},
        {"lines": [{}], "problems": []},
        {"lines": [{**Report([line()]).to_json()["lines"][0], "kind": "planet"}], "problems": []},
        {"lines": [{**Report([line()]).to_json()["lines"][0], "accepted": "many"}], "problems": []},
        [],
    ],
)
def test_what_is_no_report_is_refused(data):
    with pytest.raises(ValueError, match=r"not an audit report|invalid literal"):
        Report.from_json(data)


def test_totals_are_by_name():
    lines = [
        LedgerLine("receiver", "otlp", accepted=3, dropped=1, in_flight=2, reasons={"a": 1}),
        LedgerLine("receiver", "jaeger", accepted=1, delivered=1),
        LedgerLine("receiver", "otlp", accepted=2, dropped=2, reasons={"a": 1, "b": 1}),
    ]
    assert totals("tenant", lines) == [
        LedgerLine("tenant", "jaeger", accepted=1, delivered=1),
        LedgerLine("tenant", "otlp", accepted=5, dropped=3, in_flight=2, reasons={"a": 2, "b": 1}),
    ]
