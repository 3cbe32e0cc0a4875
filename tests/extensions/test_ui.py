import asyncio
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.extensions.ui import FACTORY, Config, assets, live, login
from otelwp_agent.extensions.ui.report import report
from otelwp_agent.traces.blame import blame
from otelwp_agent.traces.store import TraceQuery
from tests.kit.page_traces import page
from tests.kit.ui_page import Source, UiHost, ask, serving

TOKEN = "a-token-that-is-long-enough"
MARKUP = '"><script>alert(1)</script>'
DATA = (
    *("/api/graph", "/api/ledger", "/api/dead-letters", "/api/sampling", "/api/traces", "/api/trace?id=" + "0" * 32),
    *("/api/sites", "/api/blame", "/report.html?site=x", "/api/live"),
)


async def test_the_page_and_its_files_are_served():
    async with serving() as ui:
        response, text = await ask(ui, "/")
        headers = dict(response.headers)
        assert response.status == 200
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        for path in re.findall(rb'(?:href|src)="(/[^"]+)"', text):
            assert (await ask(ui, path.decode()))[0].status == 200
        again, _ = await ask(ui, "/", If_None_Match=headers["ETag"])
        assert again.status == 304


def test_nothing_is_loaded_from_other_servers_and_nothing_runs_inline():
    texts = {file.name: file.read_text() for file in assets.FOLDER.iterdir()}
    allowed = "http://www.w3.org/2000/svg"  # the name of a format
    for name, text in texts.items():
        assert not re.search(r"https?://", text.replace(allowed, "")), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", text), name
    assert not re.search(r"<script(?![^>]*src=)|<style| on[a-z]+=| style=", texts["index.html"])


async def test_requests_with_the_name_of_another_host_are_refused():
    async with serving() as ui:
        for path in ("/", "/api/graph", "/api/live", "/api/session"):
            assert (await ask(ui, path, Host="evil.example"))[0].status == 403


async def test_data_come_from_the_control_socket_and_the_traces():
    host = UiHost(Source(*(page(number) for number in range(6))))
    async with serving(host) as ui:
        assert (await ask(ui, "/api/graph"))[1] == {"path": "/graph"}
        assert (await ask(ui, "/api/ledger"))[1] == {"path": "/audit"}
        traces = (await ask(ui, "/api/traces?text=cart&limit=3"))[1]
        assert [trace["route"] for trace in traces["traces"]] == ["/cart"]
        assert traces["stores"][0]["traces"] == 6
        found = (await ask(ui, f"/api/trace?id={traces['traces'][0]['trace_id']}"))[1]
        assert len(found["items"]) == 9
        assert (await ask(ui, "/api/sites"))[1]["sites"][0]["site"] == "shop.example"
        owners = (await ask(ui, "/api/blame?site=shop.example"))[1]["owners"]
        assert owners[0]["owner"] == "slow-related-posts"
        response, text = await ask(ui, "/report.html?site=shop.example")
        assert "attachment" in dict(response.headers)["Content-Disposition"]
        assert b"slow-related-posts" in text


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/trace?id=xyz", 400),
        ("/api/trace?id=" + "0" * 32, 404),
        ("/api/traces?limit=0", 400),
        ("/api/traces?limit=1000", 400),
        ("/api/traces?min_ms=nan", 400),
        ("/api/blame?min_ms=x", 400),
        ("/report.html", 400),
        ("/nothing", 404),
    ],
)
async def test_invalid_requests_are_refused(target, status):
    async with serving() as ui:
        assert (await ask(ui, target))[0].status == status


async def test_the_ledger_is_read_once_for_all_who_ask():
    host, now = UiHost(), [0.0]
    async with serving(host, clock=lambda: now[0]) as ui:
        for _ in range(3):
            await ask(ui, "/api/ledger")
        assert len(host.asked) == 1
        now[0] = 10.0
        await ask(ui, "/api/ledger")
        assert len(host.asked) == 2


async def test_letters_are_resent_for_pages_of_this_host_only():
    host = UiHost()
    async with serving(host) as ui:
        path, data = "/api/dead-letters/resend", {"all": True}
        assert (await ask(ui, path, "POST", data, Origin="http://evil.example"))[0].status == 403
        assert (await ask(ui, path, "POST", data, Content_Type="text/plain"))[0].status == 415
        assert host.asked == []
        assert (await ask(ui, path, "POST", data))[0].status == 200
        assert host.asked == [("/dead-letters/resend", b'{"all": true}')]


async def test_the_graph_is_sent_live(monkeypatch):
    monkeypatch.setattr(live, "INTERVAL", 0.001)
    async with serving() as ui:
        reader, writer = await asyncio.open_connection("127.0.0.1", ui.port)
        writer.write(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):
                assert await reader.readuntil(b"\n\n") == b'event: graph\ndata: {"path":"/graph"}\n\n'
        writer.close()
        await writer.wait_closed()


async def test_the_number_of_streams_is_bounded(monkeypatch):
    monkeypatch.setattr(live, "MOST_STREAMS", 0)
    async with serving() as ui:
        assert (await ask(ui, "/api/live"))[0].status == 503


@pytest.mark.parametrize("target", DATA)
async def test_data_need_a_login_if_one_is_set(target):
    async with serving(token=TOKEN) as ui:
        assert (await ask(ui, "/"))[0].status == 200
        assert (await ask(ui, target))[0].status == 401
        assert (await ask(ui, target, Cookie=f"{login.COOKIE}=guessed"))[0].status == 401
        assert (await ask(ui, target, Authorization="Bearer wrong"))[0].status == 401


async def test_a_token_begins_a_session_which_ends():
    now = [0.0]
    async with serving(token=TOKEN, clock=lambda: now[0]) as ui:
        assert (await ask(ui, "/api/session"))[1] == {"login": True, "user": None, "may_change": False}
        assert (await ask(ui, "/login", "POST", {"token": "wrong"}))[0].status == 401
        response, _ = await ask(ui, "/login", "POST", {"token": TOKEN})
        cookie = dict(response.headers)["Set-Cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        session = cookie.partition(";")[0]
        assert TOKEN not in session
        assert (await ask(ui, "/api/graph", Cookie=session))[0].status == 200
        assert (await ask(ui, "/api/graph", Authorization=f"Bearer {TOKEN}"))[0].status == 200
        assert (await ask(ui, "/api/session", Cookie=session))[1]["may_change"] is True
        now[0] = login.SESSION + 1
        assert (await ask(ui, "/api/graph", Cookie=session))[0].status == 401
        response, _ = await ask(ui, "/login", "POST", {"token": TOKEN})
        session = dict(response.headers)["Set-Cookie"].partition(";")[0]
        await ask(ui, "/logout", "POST", {}, Cookie=session)
        assert (await ask(ui, "/api/graph", Cookie=session))[0].status == 401


async def test_guessing_is_banned():
    async with serving(token=TOKEN, ban={"failures": 3}) as ui:
        answers = [(await ask(ui, "/login", "POST", {"token": "guess"}))[0].status for _ in range(4)]
        assert answers == [401, 401, 401, 429]
        assert (await ask(ui, "/login", "POST", {"token": TOKEN}))[0].status == 429


@pytest.mark.parametrize("body", [{}, {"token": 7}, {"token": ""}, []])
async def test_invalid_logins_are_refused(body):
    async with serving(token=TOKEN) as ui:
        assert (await ask(ui, "/login", "POST", body))[0].status == 400


async def test_operators_log_in_and_viewers_only_read(monkeypatch):
    monkeypatch.setattr(login, "_identification", lambda _context, _store: identify)
    roles = {"viewer": False, "operator": True}

    async def identify(token):
        return login.UiUser(token, roles[token], token) if token in roles else None

    now = [0.0]
    host = UiHost()
    access = {ComponentId("control_store"): SimpleNamespace(spec=ControlAccess)}
    async with serving(host, store="control_store", clock=lambda: now[0], extensions=access) as ui:
        response, found = await ask(ui, "/login", "POST", {"token": "viewer"})
        assert found == {"login": True, "user": "viewer", "may_change": False}
        session = dict(response.headers)["Set-Cookie"].partition(";")[0]
        assert (await ask(ui, "/api/dead-letters", Cookie=session))[0].status == 200
        path = "/api/dead-letters/resend"
        assert (await ask(ui, path, "POST", {"all": True}, Cookie=session))[0].status == 403
        assert (await ask(ui, path, "POST", {"all": True}, Authorization="Bearer operator"))[0].status == 200
        del roles["viewer"]
        now[0] = login.CHECK_AGAIN + 1
        assert (await ask(ui, "/api/dead-letters", Cookie=session))[0].status == 401


@pytest.mark.parametrize("endpoint", ["0.0.0.0:1", ":1", "192.0.2.1:1", "agent.example:1"])
def test_an_endpoint_beyond_loopback_needs_a_login(endpoint):
    assert [path for path, _ in Config(endpoint=endpoint).contradictions()] == [("endpoint",)]
    assert list(Config(endpoint=endpoint, token=TOKEN).contradictions()) == []
    also = Config(additional_endpoints=[endpoint])
    assert [path for path, _ in also.contradictions()] == [("additional_endpoints", 0)]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:///run/ui.sock"])
def test_local_endpoints_need_none(endpoint):
    assert list(Config(endpoint=endpoint).contradictions()) == []


def test_a_short_token_is_refused():
    assert [path for path, _ in Config(token="short").contradictions()] == [("token",)]
    with pytest.raises(ValidationError):
        Config(nothing=1)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)


def test_markup_in_names_stays_text_in_the_report():
    store = Source(page(1, site=MARKUP, plugin=MARKUP, route=MARKUP), page(2)).store
    text = report(MARKUP, blame(store.pages(TraceQuery(site=MARKUP))), 0.0)
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.found
    assert "&lt;script&gt;alert(1)" in text


def test_the_factory_is_free():
    assert FACTORY.tier.value == "free"
