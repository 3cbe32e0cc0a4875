"""The rows of `wordpress.plugin.usage`: in which order the plugin writes them."""

import json

ROWS = """
    function add_action() {}
    function did_action() { return 1; }
    function wp_json_encode($value, $flags) { return json_encode($value, $flags); }
    $trace = new Otelwp\\Trace(Otelwp\\Trace_Context::from_headers(''), 9);
    $root = $trace->open('GET single', 2);
    $usage = new Otelwp\\Collect\\Usage($trace, $root);
    foreach ($data as $plugin => $figures) {
        foreach ($figures as $figure => $amount) {
            $usage->add(['wordpress.plugin' => $plugin], $figure, $amount);
        }
    }
    $usage->finish();
    return $trace->spans[$root][Otelwp\\Trace::ATTR]['wordpress.plugin.usage'];
"""


def test_queries_in_hooks_do_not_count_twice(php):
    """`self_ms` includes the queries and requests that a function in a hook makes."""
    used = {
        "queries-in-a-hook": {"self_ms": 100.0, "sql_ms": 90.0, "http_ms": 5.0},
        "computes": {"self_ms": 150.0},
        "queries-without-a-hook": {"load_ms": 1.0, "self_ms": 2.0, "sql_ms": 120.0},
        "loads": {"load_ms": 110.0},
    }
    names = [json.loads(row)["name"] for row in php(ROWS, used)]
    assert names == ["computes", "queries-without-a-hook", "loads", "queries-in-a-hook"]
