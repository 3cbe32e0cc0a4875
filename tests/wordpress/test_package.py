"""The plugin as a package: what a reviewer of the plugin directory looks at before they install it."""

import re
import shutil
import subprocess

import pytest

import otelwp_agent
from tests.wordpress.conftest import PLUGIN, ROOT

SOURCES = sorted((ROOT / "examples/wordpress").rglob("*.php"))
CLASSES = [path for path in SOURCES if path.name.startswith("class-")]
TRANSLATED = re.compile(r"\b(?:__|_e|_x|_n|esc_html__|esc_html_e|esc_attr__|esc_attr_e)\( '")

# PHP 8 has these and 7.4 has not.
NEWER = {
    "str_contains() and its like": re.compile(
        r"\b(?:str_contains|str_starts_with|str_ends_with|get_debug_type|array_is_list)\("
    ),
    "match": re.compile(r"=\s*match\s*\("),
    "nullsafe ->": re.compile(r"\?->"),
    "union types": re.compile(r"function[^;{]*\(\s*[^)]*\b\w+\|\w+\s+\$"),
    "promoted properties": re.compile(r"__construct\([^)]*\b(?:private|protected|public)\b"),
    "a comma behind the last parameter": re.compile(r"function\s*\w*\s*\([^()]*,\s*\)"),
    "static as a type": re.compile(r"\)\s*:\s*static\b"),
    "attributes": re.compile(r"^\s*#\[", re.MULTILINE),
    "catch without a variable": re.compile(r"catch\s*\(\s*[\\\w|]+\s*\)"),
    "throw as an expression": re.compile(r"(?:\?\?|\?:|=>)\s*throw\b"),
}


def name_of(path):
    return path.relative_to(ROOT / "examples/wordpress").as_posix()


def header(field):
    (value,) = re.findall(
        rf"^ \* {re.escape(field)}:\s*(.+)$", (PLUGIN / "otelwp.php").read_text("utf-8"), re.MULTILINE
    )
    return value


def readme(field):
    (value,) = re.findall(rf"^{re.escape(field)}:\s*(.+)$", (PLUGIN / "readme.txt").read_text("utf-8"), re.MULTILINE)
    return value


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_php_takes_it(php_program, path):
    done = subprocess.run([php_program, "-l", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_it_is_for_php_7_4(path):
    code = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", path.read_text("utf-8"), flags=re.DOTALL)
    assert [what for what, pattern in NEWER.items() if pattern.search(code)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nobody_runs_a_file_by_its_address(path):
    text = path.read_text("utf-8")
    assert "defined( 'ABSPATH' ) || exit;" in text or "defined( 'WP_UNINSTALL_PLUGIN' ) || exit;" in text


@pytest.mark.parametrize("path", CLASSES, ids=name_of)
def test_a_class_stands_where_it_is_looked_for(path):
    text = path.read_text("utf-8")
    ((namespace,), (name,)) = (
        re.findall(r"^namespace (\S+);$", text, re.MULTILINE),
        re.findall(r"^final class (\w+)", text, re.MULTILINE),
    )
    parts = [*namespace.split("\\")[1:], "class-" + name.replace("_", "-")]
    assert path.relative_to(PLUGIN / "includes").as_posix() == "/".join(parts).lower() + ".php"


def test_header_and_readme_agree():
    assert header("Version") == readme("Stable tag")
    assert header("Requires at least") == readme("Requires at least")
    assert header("Requires PHP") == readme("Requires PHP") == "7.4"
    assert header("License") == readme("License") == "GPL-2.0-or-later"
    assert header("Text Domain") == PLUGIN.name
    constant = re.search(r"define\( 'OTELWP_VERSION', '([^']+)' \)", (PLUGIN / "otelwp.php").read_text("utf-8"))
    assert constant[1] == header("Version") == otelwp_agent.__version__


def test_the_readme_is_what_the_directory_takes():
    text = (PLUGIN / "readme.txt").read_text("utf-8")
    assert text.startswith("=== ")
    for section in ("Description", "Installation", "Frequently Asked Questions", "External services", "Changelog"):
        assert f"\n== {section} ==\n" in text
    short = text.split("\n\n")[1]
    assert len(short) <= 150, "the directory cuts the short description there"
    assert f"= {readme('Stable tag')} =" in text
    assert len(readme("Tags").split(",")) <= 5


def test_nothing_is_sent_over_the_web():
    """One host is talked to, the agent's; nothing is fetched from anywhere."""
    for path in SOURCES:
        text = path.read_text("utf-8")
        assert not re.search(r"\bwp_(?:safe_)?remote_(?:get|post|request|head)\(|\bcurl_init\(|\bfsockopen\(", text), (
            path
        )
        hosts = set(re.findall(r"https?://([\w.-]+)", text)) - {"127.0.0.1", "www.gnu.org", "www.w3.org", "host"}
        assert hosts == set(), path


def test_translations_have_our_domain():
    for path in SOURCES:
        text = path.read_text("utf-8")
        calls = len(TRANSLATED.findall(text))
        assert calls == len(re.findall(r"', 'otelwp' \)", text)), path


def test_the_template_for_translators_is_up_to_date(tmp_path):
    if shutil.which("xgettext") is None:
        pytest.skip("xgettext (gettext) is not installed: languages/otelwp.pot is not compared")
    made = tmp_path / "otelwp.pot"
    subprocess.run([PLUGIN.parent / "make-pot.sh", made], check=True)
    kept = (PLUGIN / "languages/otelwp.pot").read_text("utf-8")

    def messages(text):
        return re.sub(r'^"POT-Creation-Date.*$', "", text, flags=re.MULTILINE)

    assert messages(made.read_text("utf-8")) == messages(kept), "examples/wordpress/make-pot.sh writes it"
