import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.processors.wordpress.routes import Page, Routes


def name(url, **fields):
    path, _, query = url.partition("?")
    return Routes().name(Page(method="GET", path=path, query=query, **fields))


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("/", "front"),
        ("/index.php", "front"),
        ("/page/3/", "front"),
        ("/?p=7", "single"),
        ("/?page_id=2", "page"),
        ("/?cat=3", "category"),
        ("/?s=how+to", "search"),
        ("/?s=", "search"),
        ("/hello-world/", "singular"),
        ("/2026/11/20/hello-world/", "single"),
        ("/2026/11/", "date"),
        ("/category/news/page/2/", "category"),
        ("/blog/author/ann/", "author"),
        ("/feed/", "feed"),
        ("/?feed=rss2", "feed"),
        ("/comments/feed/", "feed"),
        ("/wp-sitemap-posts-post-1.xml", "sitemap"),
        ("/robots.txt", "robots"),
        ("/wp-login.php", "login"),
        ("/wp-login.php?action=lostpassword", "login lostpassword"),
        ("/wp-login.php?action=<script>", "login"),
        ("/xmlrpc.php", "xmlrpc"),
        ("/wp-cron.php?doing_wp_cron=1795186137.70", "cron"),
        ("/wp-comments-post.php", "comment"),
        ("/wp-admin/", "admin index.php"),
        ("/wp-admin/post.php?post=12&action=edit", "admin post.php"),
        ("/wp-admin/network/sites.php", "admin sites.php"),
        ("/wp-admin/admin-ajax.php?action=heartbeat", "ajax heartbeat"),
        ("/wp-admin/admin-ajax.php?action=1+OR+1", "ajax"),
        ("/wp-admin/admin-ajax.php", "ajax"),
        ("/wp-json/", "rest /"),
        ("/wp-json", "rest /"),
        ("/wp-json/wp/v2/posts/12/revisions/7", "rest /wp/v2/posts/{id}/revisions/{id}"),
        ("/blog/wp-json/wp/v2/users/me", "rest /wp/v2/users/me"),
        ("/?rest_route=/wp/v2/posts", "rest /wp/v2/posts"),
        ("/wp-json/x/v1/550e8400-e29b-41d4-a716-446655440000", "rest /x/v1/{hash}"),
        ("/wp-json/x/v1/Ärger", "rest /x/v1/{value}"),
        ("/wp-jsonx/", "singular"),
    ],
)
def test_routes(url, route):
    assert name(url)[1] == route


def test_what_the_flags_say_counts():
    assert name("/nope", status=404) == ("front", "404")
    assert name("/wp-json/none", status=404)[0] == "rest"
    assert name("/anything", cron=True) == ("cron", "cron")
    assert name("/options", admin=True) == ("admin", "admin")
    assert Routes().name(Page()) == ("cli", "cli")


def test_made_up_names_end():
    routes = Routes(limit=3)
    names = {routes.name(Page("POST", "/wp-admin/admin-ajax.php", f"action=a{index}"))[1] for index in range(100)}
    assert names == {"ajax a0", "ajax a1", "ajax a2", "ajax"}
    assert routes.name(Page("GET", "/"))[1] == "other"


@given(st.text(), st.text(), st.integers(), st.booleans(), st.booleans())
def test_anything_has_a_name(path, query, status, admin, cron):
    type_, route = Routes().name(Page("GET", path, query, status, admin, cron))
    assert type_
    assert len(route) < 800
