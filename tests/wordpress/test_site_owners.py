"""The plugin or theme that caused a query, a request, a mail or an error, on a real WordPress."""

import json

import pytest

from tests.wordpress.kit import CLIENT, attributes

pytestmark = pytest.mark.interop

CASES = "wp-content/mu-plugins/cases.php"


def owner(found):
    return found.get("wordpress.plugin"), found.get("code.file.path"), found.get("code.function.name")


def usage(trace):
    """Return the rows of the attribute by kind and name."""
    rows = [json.loads(each.string_value) for each in attributes(trace.root)["wordpress.plugin.usage"].values]
    return {(row.pop("kind"), row.pop("name", "")): row for row in rows}


def test_queries(site):
    trace = site.trace("/?case=repeated")
    (event,) = trace.root.events
    found = attributes(event)
    assert owner(found) == ("cases", CASES, "{closure}")
    line = found["code.line.number"]
    assert "$wpdb->postmeta" in (site.wordpress.site / CASES).read_text("utf-8").splitlines()[line - 1]
    row = usage(trace)["plugin", "cases"]
    assert row["queries"] >= 25
    assert row["sql_ms"] > 0


def test_the_table_has_all_queries(site):
    trace = site.trace("/?case=repeated")
    rows = usage(trace)
    counted = sum(row.get("queries", 0) for row in rows.values())
    total = attributes(trace.root)["wordpress.db.query_count"]
    assert total - 10 <= counted <= total, "only the queries before the plugin is loaded are missing"
    assert rows["core", ""]["queries"] > 0
    assert sum(row.get("sql_ms", 0) for row in rows.values()) == pytest.approx(
        attributes(trace.root)["wordpress.db.duration_ms"], rel=0.01
    )


def test_counted_queries(site):
    with site.changed(database="counted"):
        trace = site.trace("/?case=repeated")
    assert owner(attributes(trace.root.events[0])) == ("cases", CASES, "{closure}")
    assert usage(trace)["plugin", "cases"]["queries"] >= 25


def test_queries_of_wordpress_have_no_plugin(site):
    trace = site.trace("/hello-world/")
    queries = [attributes(span) for span in trace.spans if span.kind == CLIENT]
    assert queries
    assert {found.get("wordpress.plugin") for found in queries} <= {None, "cases"}
    assert None in {found.get("wordpress.plugin") for found in queries}


def test_requests_mails_and_pages_of_wp_die(site, other):
    trace = site.trace(f"/?case=rewritten&to={other.url}")
    calls = [attributes(span) for span in trace.spans if "url.scheme" in attributes(span) and span.kind == CLIENT]
    assert [owner(found) for found in calls] == [("cases", CASES, "{closure}")] * 2
    row = usage(trace)["plugin", "cases"]
    assert row["http_requests"] == 2
    assert row["http_ms"] > 0

    trace = site.trace("/?case=mail")
    assert {owner(attributes(span)) for span in trace.named("wp_mail")} == {("cases", CASES, "{closure}")}
    assert usage(trace)["plugin", "cases"]["mails"] == 2

    trace = site.trace("/?case=die", status=503)
    (event,) = [event for event in trace.root.events if event.name == "wordpress.wp_die"]
    assert owner(attributes(event)) == ("cases", CASES, "{closure}")
    assert usage(trace)["plugin", "cases"]["errors"] == 1


def test_a_fatal_error(site):
    trace = site.trace("/?case=fatal", status=500)
    assert usage(trace)["plugin", "cases"]["errors"] == 1


SLOW = "<?php /* Plugin Name: Slow */ usleep( 30000 ); add_action( 'wp_loaded', 'slow_option' );"
SLOW += " function slow_option() { get_option( 'slow_' . wp_rand() ); }"


def test_the_time_for_loading_a_plugin(site):
    folder = site.wordpress.site / "wp-content/plugins/slow-one"
    folder.mkdir()
    (folder / "slow-one.php").write_text(SLOW)
    site.wordpress.activate("slow-one")
    try:
        rows = usage(site.trace("/"))
    finally:
        site.wordpress.deactivate("slow-one")
    row = rows["plugin", "slow-one"]
    assert row["load_ms"] >= 30
    assert row["queries"] == 1
    others = [each.get("load_ms", 0) for key, each in rows.items() if key != ("plugin", "slow-one")]
    assert max(others) < row["load_ms"]


def test_cron_hooks(site):
    site.ask("return wp_schedule_single_event(time() - 1, 'cases_cron');")
    trace = site.trace("/wp-cron.php?doing_wp_cron")
    (span,) = trace.named("cron cases_cron")
    assert owner(attributes(span)) == ("cases", CASES, "{closure}")
