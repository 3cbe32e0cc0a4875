import random

import pytest

from otelwp_agent.traces.blame import BUCKETS, OTHER, TOP, PageTime, blame, sites
from otelwp_agent.traces.usage import OwnerUsage


def page(us=100_000, *, start=0, weight=1.0, measure="spans", route="/", site="shop", error=False, **usage):
    found = {name: OwnerUsage(us=float(time)) for name, time in usage.items()}
    return PageTime(site, route, start, us, error, weight, measure, found)


def test_plugins_are_ranked_by_their_time_per_page():
    found = blame([page(gallery=30_000, seo=5_000), page(gallery=50_000)])
    assert [(row["owner"], row["mean"]) for row in found["owners"]] == [("gallery", 40), ("seo", 2.5)]
    assert found["owners"][0]["share"] == pytest.approx(0.4)
    assert found["page"]["mean"] == 100


def test_a_sampled_page_stands_for_several():
    found = blame([page(100_000, weight=9, gallery=10_000), page(200_000, gallery=20_000)])
    assert found["pages"] == 10
    assert found["page"]["mean"] == 110
    assert found["owners"][0]["mean"] == 11


def test_one_page_has_no_interval():
    found = blame([page(gallery=1_000)])
    assert (found["page"]["low"], found["owners"][0]["high"]) == (None, None)


def test_intervals_contain_the_truth():
    """Of 400 samples in which slow pages are kept more often, about 95 % of the intervals contain the mean."""
    chance, covered = random.Random(1), 0
    for _ in range(400):
        pages = []
        for _ in range(400):
            us = chance.expovariate(1 / 50_000)
            kept = 0.9 if us > 100_000 else 0.3
            if chance.random() < kept:
                pages.append(page(us, weight=1 / kept, gallery=us / 2))
        low_high = blame(pages)["owners"][0]
        covered += low_high["low"] <= 25 <= low_high["high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_only_profiled_pages_tell_the_time_of_plugins():
    pages = [page(measure="profiled", gallery=40_000), page(measure="lower_bound", gallery=1_000)]
    found = blame(pages)
    assert (found["measure"], found["measured"], found["traces"]) == ("profiled", 1, 2)
    assert found["owners"][0]["mean"] == 40


def test_routes_name_the_slowest_plugin():
    found = blame([page(route="/cart", gallery=1_000, shop=9_000), page(route="/", error=True, gallery=5_000)])
    assert [(row["route"], row["slowest_owner"], row["errors"]) for row in found["routes"]] == [
        ("/", "gallery", 1),
        ("/cart", "shop", 0),
    ]


def test_many_names_are_bounded():
    pages = [page(route=f"/{number}", start=number, **{f"p{number}": number}) for number in range(5 * TOP)]
    found = blame(pages)
    assert len(found["owners"]) == TOP
    assert found["owners_left_out"] == 4 * TOP
    assert len(found["routes"]) == TOP + 1
    assert sum(row["pages"] for row in found["routes"]) == 5 * TOP
    assert len(found["timeline"]) <= BUCKETS


def test_the_timeline_adds_up_to_the_page_time():
    found = blame([page(start=number * 1000, gallery=30_000, seo=900_000) for number in range(100)])
    for period in found["timeline"]:
        assert sum(period["owners"].values()) == pytest.approx(100)
    assert OTHER in found["timeline"][0]["owners"]


def test_nothing_is_no_error():
    found = blame([])
    assert (found["owners"], found["routes"], found["timeline"], found["page"]["mean"]) == ([], [], [], None)


def test_sites_are_summed_up():
    found = sites([page(weight=2), page(site="blog", error=True, start=7)])
    assert [(site["site"], site["pages"], site["errors"], site["last"]) for site in found] == [
        ("shop", 2, 0, 0),
        ("blog", 1, 1, 7),
    ]
