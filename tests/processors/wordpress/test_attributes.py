import pytest

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode
from otelwp_agent.processors.wordpress import attributes
from otelwp_agent.processors.wordpress.attributes import PLAIN, AttributeEditor, key_value
from otelwp_agent.processors.wordpress.redaction import Redactor


def plain(data):
    pair = pb.KeyValue.FromString(data)
    return pair.key.decode(), as_string(decode(pair.value))


def read(key, value, **settings):
    return AttributeEditor(settings.pop("redactor", Redactor()), **settings).read(key_value(key, value))


@pytest.mark.parametrize(
    ("path", "relative", "added"),
    [
        (
            "/var/www/wp-content/plugins/woocommerce/includes/a.php",
            "wp-content/plugins/woocommerce/includes/a.php",
            ("plugin", "wordpress.plugin", "woocommerce"),
        ),
        (
            "/srv/x/wp-content/themes/twenty/index.php",
            "wp-content/themes/twenty/index.php",
            ("theme", "wordpress.theme", "twenty"),
        ),
        (
            "C:\\www\\wp-content\\mu-plugins\\loader.php",
            "wp-content/mu-plugins/loader.php",
            ("plugin", "wordpress.plugin", "loader"),
        ),
        ("/var/www/wp-includes/class-wpdb.php", "wp-includes/class-wpdb.php", None),
        ("/var/www/wp-load.php", "wp-load.php", None),
    ],
)
def test_paths_begin_at_wordpress_and_say_whose_code_it_is(path, relative, added):
    known = read("code.file.path", path)
    assert [plain(each) for each in known.new] == [("code.file.path", relative)]
    assert (known.added[0], *plain(known.added[1])) == added if added else known.added == ("", b"")
    assert read("code.file.path", path, code=False) is PLAIN


@pytest.mark.parametrize("path", ["wp-includes/a.php", "/usr/share/php/x.php", "eval()'d code", ""])
def test_paths_that_are_relative_or_not_wordpress_stay(path):
    assert read("code.filepath", path).new is None


def test_a_relative_path_still_says_whose_code_it_is():
    known = read("code.file.path", "wp-content/plugins/a/b.php")
    assert (known.new, known.added[0]) == (None, "plugin")


def test_sql_is_a_fact_even_where_it_stays():
    known = read("db.query.text", "SELECT 1")
    assert (known.fact, known.value, [plain(each) for each in known.new]) == (
        "sql",
        "SELECT ?",
        [("db.query.text", "SELECT ?")],
    )
    for settings in ({"sql_literals": True}, {"redactor": None}):
        known = read("db.statement", "SELECT 1", **settings)
        assert (known.fact, known.value, known.new) == ("sql", "SELECT ?", None)


def test_users_are_removed_except_whether_one_was_logged_in():
    known = read("wp.user_id", 7)
    assert (known.new, plain(known.added[1])) == ((), ("wordpress.user.logged_in", "true"))
    assert plain(read("wp.user_id", 0).added[1]) == ("wordpress.user.logged_in", "false")
    assert read("wp.user_id", 7, redactor=None).new is None
    hashed = read("wp.user_id", 7, redactor=Redactor(b"k")).new
    assert plain(hashed[0])[0] == "wp.user_id"
    assert len(plain(hashed[0])[1]) == 16


def test_facts_are_of_the_original_attributes():
    known = read("url.full", "https://a.example/?s=illness")
    assert (known.fact, known.value) == ("url", "https://a.example/?s=illness")
    assert plain(known.new[0])[1] == "https://a.example/?s=REDACTED"
    assert (read("http.status_code", 404).value, read("wp.is_admin", value=True).value) == (404, True)


def test_other_attributes_stay_unchanged():
    for value in ("text", 1, 1.5, True, ["a"], None):
        assert read("my.own", value) is PLAIN
    assert AttributeEditor(Redactor()).read(b"\xff\xff") is PLAIN


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(attributes, "REMEMBERED", 5)
    reader = AttributeEditor(Redactor())
    for number in range(20):
        reader.read(key_value("db.query.text", f"SELECT {number}"))
    reader.read(key_value("db.query.text", "x" * 10_000))
    assert len(reader._known) <= 5
    assert all(len(each) < 1100 for each in reader._known)
