"""What is taken out of SQL, messages, paths and query strings before it leaves the host, and how routes are named."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

slow = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SHAPE = "return array_map(['Otelwp\\Collect\\Sql', 'shape'], $data);"

STATEMENTS = {
    "SELECT * FROM wp_posts WHERE ID = 7": "SELECT * FROM wp_posts WHERE ID = ?",
    "SELECT * FROM wp_posts WHERE ID IN (1,2, 3)": "SELECT * FROM wp_posts WHERE ID IN (?)",
    "SELECT a FROM t WHERE b IN ('x','y') LIMIT 0, 10": "SELECT a FROM t WHERE b IN (?) LIMIT ?, ?",
    "SELECT 'it''s', 'a\\'b', \"c\" FROM t": "SELECT ?, ?, ? FROM t",
    "SELECT `order`.`1` FROM wp_2_posts WHERE post1 = 1.5e3 AND h = 0xFF": (
        "SELECT `order`.`1` FROM wp_2_posts WHERE post1 = ? AND h = ?"
    ),
    "INSERT INTO t (a,b) VALUES (1,'x'), (2,'y'),(3,'z')": "INSERT INTO t (a,b) VALUES (?)",
    "SELECT /* user 7 */ 1 -- 'secret'\n FROM t # 'secret'": "SELECT ? FROM t",
    "SELECT\n\t *\r\n  FROM  t": "SELECT * FROM t",
    "SELECT * FROM t WHERE a = 'cut off": "SELECT * FROM t WHERE a = ?",
    "SELECT * FROM t WHERE a = 'cut off\\": "SELECT * FROM t WHERE a = ?",
    "SELECT * FROM t /* cut off": "SELECT * FROM t",
    "UPDATE t SET a = -1 WHERE b = 'é日本'": "UPDATE t SET a = -? WHERE b = ?",
    "": "",
}


def test_statements_lose_their_values(php):
    assert dict(zip(STATEMENTS, php(SHAPE, list(STATEMENTS)), strict=True)) == STATEMENTS


def test_a_megabyte_in_quotes_costs_little(php):
    shape, milliseconds = php("""
        $sql = "UPDATE wp_options SET option_value = '" . str_repeat("a\\\\'b", 300000) . "' WHERE option_name = 'x'";
        $t = hrtime(true); $shape = Otelwp\\Collect\\Sql::shape($sql);
        return [$shape, (hrtime(true) - $t) / 1e6];
    """)
    assert shape == "UPDATE wp_options SET option_value = ?"
    assert milliseconds < 20


@slow
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
            min_size=1,
            max_size=4,
        ),
        min_size=20,
        max_size=20,
    )
)
def test_no_value_survives(php, rows):
    """Whatever stands in quotes, escaped as wpdb escapes, is gone; what stands around it stays."""

    def escaped(text):
        return re.sub(r"(['\"\\\\])", r"\\\1", text).replace("\n", "\\n").replace("\r", "\\r").replace("\x1a", "\\Z")

    statements = [
        "SELECT a FROM t WHERE " + " AND ".join(f"c = '<{escaped(text)}>'" for text in row) + " LIMIT 5" for row in rows
    ]
    for row, shape in zip(rows, php(SHAPE, statements), strict=True):
        assert shape == "SELECT a FROM t WHERE " + " AND ".join("c = ?" for _ in row) + " LIMIT ?"


@pytest.mark.parametrize(
    ("sql", "summary"),
    [
        ("SELECT * FROM wp_posts WHERE 1", "SELECT posts"),
        ("SELECT * FROM `wp_posts` JOIN wp_postmeta", "SELECT posts"),
        ("SELECT * FROM wp_2_posts", "SELECT posts"),
        ("INSERT IGNORE INTO wp_options (a) VALUES (1)", "INSERT options"),
        ("UPDATE wp_users SET x = 1", "UPDATE users"),
        ("DELETE FROM other.log", "DELETE other.log"),
        ("SHOW FULL COLUMNS FROM wp_posts", "SHOW"),
        ("SET NAMES utf8mb4", "SET"),
        ("(SELECT 1 FROM wp_terms) UNION (SELECT 2)", "SELECT terms"),
        ("CREATE TABLE IF NOT EXISTS wp_new (a int)", "CREATE new"),
        ("REPLACE INTO wp_options (a) VALUES (1)", "REPLACE options"),
        ("", "query"),
    ],
)
def test_spans_of_queries_have_few_names(php, sql, summary):
    found = php(
        """$shape = Otelwp\\Collect\\Sql::shape($data); list($verb, $table) = Otelwp\\Collect\\Sql::operation($shape);
           return Otelwp\\Collect\\Sql::summary($verb, $table, 'wp_', 'wp_');""",
        sql,
    )
    assert found == summary


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        ("Table 'shop.wp_x' doesn't exist", "Table '?' doesn't exist"),
        ("Duplicate entry 'Pat O'Brien' for key 'email'", "Duplicate entry '?'"),
        ("near 'secret'' at line 1", "near '?' at line 1"),
        ("Lost connection to server during query", "Lost connection to server during query"),
    ],
)
def test_messages_of_the_database_lose_what_they_quote(php, message, rest):
    assert php("return Otelwp\\Collect\\Sql::message($data);", message) == rest


@pytest.mark.parametrize(
    ("pattern", "route"),
    [
        ("/wp/v2/posts", "/wp/v2/posts"),
        (r"/wp/v2/posts/(?P<id>[\d]+)", "/wp/v2/posts/{id}"),
        (r"/wp/v2/posts/(?P<parent>[\d]+)/revisions/(?P<id>[\d]+)", "/wp/v2/posts/{parent}/revisions/{id}"),
        (
            r"/wp/v2/templates/(?P<id>([^\/:<>\*\?\"\|]+(?:\/[^\/:<>\*\?\"\|]+)?)[\/\w%-]+)",
            "/wp/v2/templates/{id}",
        ),
        (r"/wp/v2/plugins/(?P<plugin>[^.\/]+(?:\/[^.\/]+)?)", "/wp/v2/plugins/{plugin}"),
        (r"/wc/v3/orders/batch/?", "/wc/v3/orders/batch/"),
        ("", ""),
    ],
)
def test_rest_routes_can_be_read(php, pattern, route):
    assert php("return Otelwp\\Collect\\Rest::readable($data);", pattern) == route


def test_messages_lose_people_and_places(php):
    message = (
        "Cannot mail to jane.doe+x@example.org about order 12345678 from /srv/www/wp-content/plugins/shop/a.php "
        "at https://shop.example/pay?token=abc&id=7 on line 12"
    )
    assert php("return Otelwp\\Redact::text($data);", message) == (
        "Cannot mail to [email] about order [number] from wp-content/plugins/shop/a.php "
        "at https://shop.example/pay?[query] on line 12"
    )


def test_query_strings_lose_what_looks_secret(php):
    query = "page=2&s=illness&_wpnonce=1234&reset_key=abc&user%5Femail=a%40b.c&flag&orderby=date"
    assert php("return Otelwp\\Redact::query($data);", query) == (
        "page=2&s=REDACTED&_wpnonce=REDACTED&reset_key=REDACTED&user%5Femail=REDACTED&flag&orderby=date"
    )


@pytest.mark.parametrize(
    ("file", "attributes"),
    [
        (
            "/srv/www/wp-content/plugins/shop/src/a.php",
            {"code.file.path": "wp-content/plugins/shop/src/a.php", "wordpress.plugin": "shop"},
        ),
        (
            "/srv/www/wp-content/themes/dark/functions.php",
            {"code.file.path": "wp-content/themes/dark/functions.php", "wordpress.theme": "dark"},
        ),
        ("/srv/www/wp-includes/load.php", {"code.file.path": "wp-includes/load.php"}),
        ("/home/jane/lib.php", {"code.file.path": "lib.php"}),
    ],
)
def test_code_is_found_without_the_paths_of_the_host(php, file, attributes):
    assert php("return Otelwp\\Redact::code($data, 7);", file) == attributes | {"code.line.number": 7}
