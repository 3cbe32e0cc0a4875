from otelwp_agent.traces import store
from otelwp_agent.traces.spans import divide
from otelwp_agent.traces.store import OVERHEAD, TraceQuery, TraceStore
from tests.kit.page_traces import page


def filled(*pages, max_bytes=2**20):
    found = TraceStore(max_bytes)
    for each in pages:
        found.add(divide(each.SerializeToString()))
    return found


def test_the_newest_traces_come_first():
    found = filled(*(page(number) for number in range(5)))
    assert [trace["route"] for trace in found.search(TraceQuery())][:2] == ["/wp-json/wp/v2/posts", "/cart"]
    assert len(found.search(TraceQuery(limit=2))) == 2


def test_memory_is_bounded_and_the_oldest_go_first():
    one = filled(page(0)).bytes
    found = filled(*(page(number) for number in range(50)), max_bytes=10 * one)
    assert found.bytes <= found.max_bytes
    assert 8 <= len(found) <= 11
    assert found.removed == 50 - len(found)
    newest = found.search(TraceQuery(limit=1))[0]["trace_id"]
    assert newest == page(49).resource_spans[0].scope_spans[0].spans[0].trace_id.hex()


def test_a_trace_larger_than_the_store_leaves_nothing():
    found = filled(page(0), max_bytes=OVERHEAD)
    assert (len(found), found.bytes) == (0, 0)


def test_spans_beyond_the_largest_trace_are_counted(monkeypatch):
    monkeypatch.setattr(store, "LARGEST_TRACE", 3000)
    found = filled(*[page(7)] * 20)
    trace = found.trace(page(7).resource_spans[0].scope_spans[0].spans[0].trace_id)
    assert trace["spans"] == 20 * 9
    assert trace["left_out"] > 0
    assert found.bytes <= OVERHEAD + 3000


def test_every_condition_counts():
    found = filled(page(0), page(1, error=True), page(2, site="blog.example", plugin="gallery"))

    def routes(**conditions):
        return [trace["route"] for trace in found.search(TraceQuery(**conditions))]

    assert routes(error=True) == ["/{postname}"]
    assert routes(site="blog.example") == routes(plugin="gallery") == ["/product/{slug}"]
    assert routes(text="POSTNAME") == ["/{postname}"]
    assert routes(text="hello-world") == ["/{postname}"]
    assert routes(route="/") == ["/"]
    assert routes(min_ms=1e6) == routes(text="nothing") == []
    first = found.search(TraceQuery())[0]
    assert routes(trace_id=first["trace_id"][:8].upper()) == [first["route"]]
    assert found.plugins() == ["contact-form-7", "gallery", "seo-suite", "slow-related-posts", "woocommerce"]


def test_a_trace_in_several_requests_is_one_trace():
    whole, late = page(4), page(4)
    del whole.resource_spans[0].scope_spans[0].spans[3:]
    del late.resource_spans[0].scope_spans[0].spans[:3]
    found = filled(late, whole)
    (summary,) = found.search(TraceQuery())
    assert (summary["spans"], summary["name"]) == (9, "GET /wp-json/wp/v2/posts")
    trace = found.trace(bytes.fromhex(summary["trace_id"]))
    assert len(trace["items"]) == 9
    assert max(trace["owners"], key=trace["owners"].get) == "slow-related-posts"
    (of_pages,) = found.pages(TraceQuery())
    assert of_pages.usage["slow-related-posts"].us > 0
    assert found.trace(b"x" * 16) is None


def test_a_trace_without_its_root_is_no_page():
    late = page(4)
    del late.resource_spans[0].scope_spans[0].spans[:1]
    assert filled(late).pages(TraceQuery()) == []
