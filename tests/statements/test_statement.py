import pytest

from otelwp_agent.statements.statement import (
    DeliveryStatement,
    ExporterFigures,
    Interruption,
    PipelineFigures,
    StatementError,
)

FIGURES = PipelineFigures(
    opening=5, accepted=20, delivered=10, sampled_out=3, filtered=2, dropped={"a": 1, "dead_letter:b": 2},
    written_off=1, closing=6,
)  # fmt: skip
STATEMENT = DeliveryStatement(
    agent="edge",
    tenant="shop",
    sequence=2,
    previous="a" * 64,
    begin=1.5,
    end=2.5,
    pipelines={"traces": FIGURES},
    exporters={"otlp": ExporterFigures(delivered=10, dropped=3)},
    interruptions=[Interruption(begin=1.6, end=1.7, pipelines=True)],
)


def changed(**changes):
    return STATEMENT.model_copy(update=changes)


def test_it_is_read_as_it_was_written():
    assert DeliveryStatement.from_claims(STATEMENT.to_claims()) == STATEMENT


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "it has version 2"),
        ({"sequence": 0}, "`sequence` is not valid"),
        ({"previous": "x"}, "`previous` is not valid"),
        ({"tenant": None}, "`tenant` is not valid"),
        ({"more": 1}, "`more` is not valid"),
        ({"pipelines": {"traces": {"accepted": "1"}}}, r"`pipelines\.traces\.accepted` is not valid"),
    ],
)
def test_other_content_is_refused(change, why):
    with pytest.raises(StatementError, match=why):
        DeliveryStatement.from_claims({**STATEMENT.to_claims(), **change})


def test_figures_that_add_up_are_no_problem():
    assert (FIGURES.settled, FIGURES.balance) == (19, 0)
    assert list(STATEMENT.problems()) == []


@pytest.mark.parametrize(
    "name", ["opening", "accepted", "delivered", "sampled_out", "filtered", "written_off", "closing"]
)
def test_each_figure_is_part_of_the_equation(name):
    figures = FIGURES.model_copy(update={name: getattr(FIGURES, name) + 7})
    (problem,) = changed(pipelines={"traces": figures}).problems()
    assert problem.startswith("pipeline traces: ")
    assert problem.endswith("7 items are neither settled nor in flight")


def test_dropped_items_are_part_of_it_and_nothing_is_below_0():
    figures = FIGURES.model_copy(update={"dropped": {}})
    assert list(changed(pipelines={"traces": figures}).problems()) == [
        "pipeline traces: 3 items are neither settled nor in flight"
    ]
    assert list(changed(pipelines={"traces": PipelineFigures(delivered=1, closing=-1)}).problems()) == [
        "pipeline traces: fewer than 0 items are in flight"
    ]
    assert list(changed(end=1.0).problems()) == ["it ends before it begins"]


def test_it_continues_the_one_before():
    before = changed(sequence=1, begin=0.5, end=1.5, pipelines={"traces": PipelineFigures(accepted=5, closing=5)})
    assert list(STATEMENT.problems_after(before)) == []
    assert list(changed(begin=1.6).problems_after(before)) == ["it begins at 1.6, but the one before ends at 1.5"]
    assert list(changed(agent="x").problems_after(before)) == ["it is of agent x, the one before of edge"]
    more = {**before.pipelines, "logs": PipelineFigures(accepted=2, closing=2)}
    assert list(STATEMENT.problems_after(before.model_copy(update={"pipelines": more}))) == [
        "pipeline logs: it begins with 0 items in flight, the one before ends with 2"
    ]
