"""The time that plugins take in hooks, on a real WordPress, and that measuring it changes nothing."""

import re
from pathlib import Path

import pytest

from tests.wordpress.kit import attributes
from tests.wordpress.test_site_owners import usage

pytestmark = pytest.mark.interop

OFFENDER = (Path(__file__).with_name("site") / "offender.php").read_text("utf-8")
KEY = "plugin", "offender"


@pytest.fixture(scope="module", autouse=True)
def offender(site):
    folder = site.wordpress.site / "wp-content/plugins/offender"
    folder.mkdir()
    (folder / "offender.php").write_text(OFFENDER)
    site.wordpress.activate("offender")
    with site.changed(profile_rate=1):
        yield
    site.wordpress.deactivate("offender")


def test_a_slow_filter_is_named(site):
    trace = site.trace("/hello-world/?offend=content")
    row = usage(trace)[KEY]
    assert row["self_ms"] >= 40
    assert (row["slowest_hook"], row["slowest_function"]) == ("the_content", "Offender::content")
    assert row["slowest_ms"] >= 40
    assert row["calls"] >= 3
    (span,) = [
        span for span in trace.named("hook the_content") if span.end_time_unix_nano - span.start_time_unix_nano > 4e7
    ]
    found = attributes(span)
    assert found["wordpress.plugin"] == "offender"
    assert found["code.file.path"] == "wp-content/plugins/offender/offender.php"
    assert attributes(trace.root)["wordpress.profile_rate"] == 1


def test_nested_calls_count_once(site):
    row = usage(site.trace("/hello-world/?offend=recursive"))[KEY]
    root = site.trace("/hello-world/?offend=recursive").root
    assert row["calls"] >= 4
    assert row["self_ms"] < (root.end_time_unix_nano - root.start_time_unix_nano) / 1e6


def test_an_exception_passes(site):
    row = usage(site.trace("/hello-world/?offend=thrown"))[KEY]
    assert row["self_ms"] >= 20
    assert row["slowest_hook"] == "the_content"


def test_a_function_that_ends_the_request_is_measured(site):
    row = usage(site.trace("/hello-world/?offend=exit"))[KEY]
    assert row["self_ms"] >= 20
    assert row["slowest_hook"] == "template_redirect"


def test_a_function_with_a_reference_is_left_alone(site):
    row = usage(site.trace("/hello-world/?offend=reference"))[KEY]
    assert row.get("slowest_hook") != "pre_get_posts"


def test_a_shortcode_is_named(site):
    row = usage(site.trace("/hello-world/?offend=shortcode"))[KEY]
    assert (row["slowest_hook"], row["slowest_ms"] >= 20) == ("[offender]", True)


def test_the_functions_of_thousands_are_measured(site):
    row = usage(site.trace("/hello-world/?offend=thousands"))[KEY]
    assert row["calls"] >= 5000


PAGES = [
    "/",
    "/hello-world/",
    "/sample-page/",
    "/no-such-page/",
    "/?s=hello",
    "/feed/",
    "/category/uncategorized/",
    "/author/admin/",
    "/?p=1",
    "/wp-login.php",
    "/wp-json/wp/v2/posts",
    "/wp-json/no/such/route",
    "/wp-sitemap.xml",
    "/robots.txt",
    "/xmlrpc.php",
    "/wp-admin/admin-ajax.php?action=secret",
    "/index.php",
    "/?page_id=2",
    "/hello-world/feed/",
    "/comments/feed/",
    "/?feed=atom",
    "/wp-json/oembed/1.0",  # /wp-json/ itself lists the route of the plugin
    "/wp-json/wp/v2/types",
    "/?rest_route=/wp/v2/pages",
    "/wp-login.php?action=lostpassword",
    "/wp-comments-post.php",
    *(
        f"/hello-world/?offend={case}"
        for case in ("content", "removed", "recursive", "reference", "thrown", "exit", "shortcode", "unhooked")
    ),
    *(f"/hello-world/?offend={case}" for case in ("replaced", "thousands", "fatal", "memory", "time", "early")),
]


def shown(answer):
    """Return what a browser gets, without what differs from request to request."""
    headers = {
        k: v
        for k, v in answer.headers.items()
        if k not in {"Date", "Last-Modified", "ETag", "Content-Length", "Expires"}
    }
    text = re.sub(r"\b[0-9a-f]{10}\b", "nonce", answer.text)
    text = re.sub(r"\b(wp-(?:container|elements|duotone|block)[\w-]*?-)\d+\b", r"\1n", text)
    return answer.status, headers, re.sub(r"<lastBuildDate>[^<]*", "", text)


def test_pages_are_the_same_with_and_without_the_plugin(site):
    def pages():
        return {page: shown(site.wordpress.visit(page)) for page in PAGES}

    profiled = pages()
    with site.changed(profile_rate=0):
        recorded = pages()
    site.wordpress.deactivate("otelwp")
    try:
        plain = pages()
    finally:
        site.wordpress.activate("otelwp")
    site.settle()
    assert profiled == plain
    assert recorded == plain
    removed = profiled["/hello-world/?offend=removed"][2]
    assert "<!-- [10,false] -->" in removed
    assert "<!-- late -->" in removed
    assert "<!-- content -->" not in removed
