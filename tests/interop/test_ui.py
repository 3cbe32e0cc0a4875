"""The page of the extension `ui` in Chromium: every screen by clicking, light and dark, at three widths."""

import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.interop.chromium import browsing
from tests.interop.process import eventually
from tests.kit.agent import Agent
from tests.kit.page_traces import page

pytestmark = pytest.mark.interop

MARKUP = "<img src=x onerror=alert(1)>"
SITE = f"shop.example {MARKUP}"
TOKEN = "a-token-of-this-test"
CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  adaptive_sampling: {{target: {{traces_per_second: 1000}}, per: [service.name, http.route], decision_wait: 100ms}}
exporters:
  recent_traces:
  zipkin: {{endpoint: 'http://127.0.0.1:{zipkin}/api/v2/spans'}}
extensions:
  ui: {{endpoint: '127.0.0.1:0'{token}}}
service:
  extensions: [ui]
  journal: {{directory: {folder}/journal}}
  pipelines:
    traces: {{receivers: [otlp], processors: [adaptive_sampling], exporters: [recent_traces, zipkin]}}
"""


class Backend(BaseHTTPRequestHandler):
    """Zipkin, which refuses what it gets while `refuses`."""

    refuses = True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = f"invalid {MARKUP}".encode() if Backend.refuses else b""
        self.send_response(400 if Backend.refuses else 202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Print nothing."""


@contextmanager
def backend():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(agent, *pages):
    for each in pages:
        request = urllib.request.Request(
            f"http://127.0.0.1:{agent.port()}/v1/traces",
            each.SerializeToString(),
            {"Content-Type": "application/x-protobuf"},
        )
        with urllib.request.urlopen(request) as response:
            assert response.status == 200


@contextmanager
def running(folder, token=""):
    """Start an agent that has got the traces of 40 pages; yield it and the URL of its page."""
    with backend() as zipkin, Agent(CONFIG.format(zipkin=zipkin, folder=folder, token=token), folder) as agent:
        send(
            agent,
            *(page(number, site=SITE, plugin=MARKUP, name=MARKUP, error=number % 4 == 0) for number in range(40)),
        )
        yield agent, agent.wait_for("ui listening")["url"]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True), (3840, False)])
def test_every_screen_is_reached_and_shows_data(tmp_path, width, dark):  # noqa: PLR0915 - one visit
    Backend.refuses = True
    with running(tmp_path) as (_, url), browsing(width, dark=dark) as browser:
        page = browser.page

        def look(heading):
            browser.heading(heading)
            assert browser.barriers() == []
            assert not browser.is_too_wide

        page.goto(url)
        browser.heading("Sites")
        eventually(lambda: page.reload() and page.get_by_role("link", name=SITE, exact=True).count())
        look("Sites")
        browser.click(SITE)
        look(SITE)
        page.locator(".chart rect").first.wait_for()
        with page.expect_download() as download:
            browser.click("Download the report")
        assert MARKUP not in download.value.path().read_text("utf-8")
        browser.click("slow-related-posts")
        look("slow-related-posts")
        page.go_back()
        browser.heading(SITE)
        browser.click("/cart")
        look("/cart")
        browser.click("Traces")
        look("Traces")
        page.get_by_label("Route, path or name").fill("cart")
        page.get_by_label("with errors").check()
        browser.click("Search", "button")
        eventually(lambda: page.get_by_text("/cart", exact=True).count() == page.locator("tbody tr").count() > 0)
        page.locator("tbody a").first.focus()
        page.keyboard.press("Enter")
        look(MARKUP)
        page.locator(".fall button").nth(1).click()
        page.get_by_text("wordpress.plugin", exact=True).first.wait_for()
        assert browser.barriers() == []
        browser.click("Pipelines")
        page.locator(".box").first.wait_for()
        look("Pipelines")
        assert page.get_by_text(f"{tmp_path}/agent.yaml:").count() == 5
        browser.click("Sampling")
        look("Sampling")
        page.get_by_text("/product/{slug}", exact=True).first.wait_for()
        browser.click("Delivery")
        look("Delivery")
        page.get_by_text("balances", exact=True).wait_for()
        Backend.refuses = False
        browser.click("Resend all…", "button")
        page.get_by_role("dialog").get_by_role("button", name="Resend all").click()
        page.get_by_text("refused again 0, kept 0").wait_for()
        page.get_by_text("No request was refused for good.").wait_for()
        assert browser.complaints == []


def test_people_log_in(tmp_path):
    with running(tmp_path, f", token: {TOKEN}") as (_, url), browsing(1280) as browser:
        browser.page.goto(url)
        browser.heading("Log in")
        assert browser.barriers() == []
        browser.page.get_by_label("Token").fill(TOKEN)
        browser.click("Log in", "button")
        browser.heading("Sites")
        browser.click("Log out", "button")
        browser.heading("Log in")
        assert browser.complaints == []
