"""docs/topics/interop.md says what the tests know: versions, and every difference with its reason."""

from pathlib import Path

import pytest
from peers import debian, golang, maven, python

from tests.interop import test_metrics, test_validate
from tests.interop.pages import PAGES

PAGE = Path(__file__).parents[2] / "docs/topics/interop.md"
TEXT = " ".join(PAGE.read_text("utf-8").split())

REASONS = [
    *(reason for _, reason in test_metrics.LABELS.values()),
    *test_metrics.ONLY_OURS.values(),
    *test_metrics.ONLY_THEIRS.values(),
    *(reason for changes in test_validate.ONLY_OURS.values() for _, reason in changes.values()),
]


@pytest.mark.parametrize(
    "version",
    [golang.collector_version(), golang.JAEGER, golang.JAEGER_1, maven.ZIPKIN, python.SDK],
)
def test_it_has_the_version(version):
    assert f"| {version} " in TEXT


def test_it_has_what_wordpress_runs_on():
    assert {"php8.2-fpm", "mariadb-server", "nginx-light"} <= set(debian.PROGRAMS)
    assert "PHP-FPM 8.2" in TEXT


@pytest.mark.parametrize("reason", sorted(set(REASONS)))
def test_it_has_the_reason(reason):
    assert f"| {reason} |" in TEXT


def test_it_names_as_many_pages_as_are_asked_for():
    listed = TEXT.partition("They request ")[2].partition(". The query APIs")[0]
    assert len(listed.replace(" and one that sends", ", one that sends").split(", ")) == len(PAGES)
