from otelwp_agent.model.signal import ALL_SIGNALS, Signal


def test_words_are_the_collectors():
    assert {signal.value: signal.items for signal in Signal} == {
        "traces": "spans",
        "metrics": "metric_points",
        "logs": "log_records",
    }
    assert frozenset(Signal) == ALL_SIGNALS
