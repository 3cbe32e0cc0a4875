from otelwp_agent.sampling.adaptive.trace import Decision, Reason, Trace


def test_reasons_equal_the_texts_in_spans_and_metrics():
    assert f"{Reason.SITE_MINIMUM}" == "site_minimum"
    assert Decision(keep=True, threshold=None, reason=Reason.ERROR).reason == "error"


def test_a_trace_needs_only_its_randomness():
    trace = Trace(5)
    assert (trace.threshold, trace.key, trace.spans, trace.error) == (0, (), 1, False)
