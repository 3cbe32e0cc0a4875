"""Queries of the database, as the plugin records them on a real WordPress."""

import pytest

from tests.wordpress.kit import CLIENT, attributes, constants

pytestmark = pytest.mark.interop


def test_a_page_costs_no_query_more(site):
    for page in ("/", "/hello-world/", "/wp-json/wp/v2/posts"):
        site.wordpress.visit(page)
        recorded = attributes(site.trace(page).root)["wordpress.db.query_count"]
        site.wordpress.add_must_use(
            "count.php",
            "<?php register_shutdown_function(function () { file_put_contents('"
            + str(site.wordpress.folder / "count")
            + "', $GLOBALS['wpdb']->num_queries); });",
        )
        site.wordpress.deactivate("otelwp")
        site.wordpress.visit(page)
        site.wordpress.visit(page)
        counted = int((site.wordpress.folder / "count").read_text())
        site.wordpress.activate("otelwp")
        (site.wordpress.site / "wp-content/mu-plugins/count.php").unlink()
        assert recorded == counted


def test_queries(site):
    trace = site.trace("/?case=slow")
    (slow,) = [span for span in trace.spans if span.events]
    found = attributes(slow)
    assert (slow.kind, slow.name, found["db.query.text"]) == (CLIENT, "SELECT", "SELECT SLEEP(?)")
    assert trace.parent(slow).name == "template"
    assert 80e6 <= slow.end_time_unix_nano - slow.start_time_unix_nano < 1e9
    assert slow.events[0].name == "wordpress.db.slow_query"
    assert found["db.system.name"] == "mariadb"

    trace = site.trace("/?case=failing")
    (failed,) = [span for span in trace.spans if span.status.code == 2]
    assert (failed.name, failed.status.message) == ("SELECT no_such_table", "Table '?' doesn't exist")
    assert attributes(failed)["db.query.text"] == "SELECT ? FROM no_such_table"
    assert b"secret" not in trace.body


def test_queries_say_who_asked(site):
    trace = site.trace("/hello-world/")
    callers = {attributes(span).get("code.function.name") for span in trace.spans if span.kind == CLIENT}
    assert {"get_option", "WP_Query->get_posts"} <= callers


def test_the_database_is_the_same_to_everybody(site):
    """A recorded page may have another class of it, but never two objects."""
    assert site.wordpress.visit("/?case=wpdb").text == '["Otelwp\\\\Collect\\\\Wpdb","100% of it",true]'
    assert site.wordpress.visit("/?case=kept").text == '["wpdb","100% of it",true]'
    assert [trace.root.name for trace in site.listener.wait()]


def test_recording_is_invisible_to_other_plugins(site):
    """Other plugins change what they do, and what they send to browsers, if SAVEQUERIES is set."""
    assert site.wordpress.visit("/?case=savequeries").text == "[false,0]"
    site.listener.wait()


def test_the_list_of_wordpress_is_read_if_it_keeps_one(site):
    with constants(site, SAVEQUERIES=True):
        trace = site.trace("/?case=failing")
    (failed,) = [span for span in trace.spans if span.status.code == 2]
    assert attributes(failed)["db.query.text"] == "SELECT ? FROM no_such_table"
    assert len([span for span in trace.spans if span.kind == CLIENT]) > 5


def test_a_query_without_the_measuring_object_is_counted(site):
    trace = site.trace("/?case=kept")
    assert [span for span in trace.spans if span.kind == CLIENT] == []
    assert attributes(trace.root)["wordpress.db.query_count"] > 5


def test_a_query_within_a_query_counts_once(site):
    trace = site.trace("/?case=nested")
    seconds = {
        attributes(span)["db.query.text"]: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        for span in trace.spans
        if span.kind == CLIENT and "SLEEP" in attributes(span)["db.query.text"]
    }
    inner, outer = seconds["SELECT SLEEP(?) AS inner_query"], seconds["SELECT SLEEP(?) AS outer_query"]
    assert inner >= 0.5
    assert 0.01 <= outer < inner, "the outer query does not include the inner one"


def test_a_query_for_each_row_is_found(site):
    trace = site.trace("/?case=repeated")
    (event,) = trace.root.events
    found = attributes(event)
    assert event.name == "wordpress.db.n_plus_one"
    assert found["db.query.text"] == "SELECT meta_value FROM wp_postmeta WHERE post_id = ? AND meta_key = ?"
    assert (found["wordpress.db.query_count"], found["db.query.summary"]) == (25, "SELECT postmeta")
    assert attributes(trace.root)["wordpress.db.n_plus_one_count"] == 1


def test_a_repeated_query_is_found_after_hundreds_of_others(site):
    trace = site.trace("/?case=shapes")
    (event,) = trace.root.events
    assert attributes(event)["db.query.text"] == "SELECT ? AS late"
    assert attributes(event)["wordpress.db.query_count"] == 25
    assert attributes(trace.root)["wordpress.db.group_count"] > 700


def test_repeated_updates_of_options_are_counted_apart(site):
    trace = site.trace("/?case=options")
    assert list(trace.root.events) == []
    assert attributes(trace.root)["wordpress.db.option_updates"] >= 25


def test_thousands_of_queries_are_a_small_message(site):
    trace = site.trace("/?case=many")
    assert attributes(trace.root)["wordpress.db.query_count"] > 3000
    assert len(trace.body) < 60_000
    assert len([span for span in trace.spans if span.kind == CLIENT]) == 10


@pytest.mark.parametrize("mode", ["counted", "off"])
def test_queries_need_not_be_timed(site, mode):
    with site.changed(database=mode):
        trace = site.trace("/?case=repeated")
    assert [span for span in trace.spans if span.kind == CLIENT] == []
    assert len(trace.root.events) == (1 if mode == "counted" else 0)
    assert attributes(trace.root)["wordpress.db.query_count"] > 25
