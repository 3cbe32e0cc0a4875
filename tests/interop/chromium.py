"""Chromium as a person uses it: pages are reached by clicking, and what the browser complains about is kept."""

import os
from contextlib import contextmanager

from peers import debian
from playwright.sync_api import sync_playwright

from tests.interop.process import PATIENCE, have


class Browser:
    """A page of the browser with the messages of its console, and axe-core."""

    def __init__(self, page, axe):
        self.page = page
        self.complaints = []
        self._axe = axe
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def _heard(self, type_, text):
        if type_ in ("error", "warning"):
            self.complaints.append(text)

    def click(self, name, role="link"):
        self.page.get_by_role(role, name=name, exact=True).first.click()

    def heading(self, text):
        """Wait for the heading of a screen."""
        self.page.get_by_role("heading", level=1, name=text, exact=True).wait_for()

    def barriers(self):
        """Return the serious and critical findings of axe-core."""
        found = self.page.evaluate(f"async () => {{ {self._axe}; return (await axe.run()).violations }}")
        return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]

    @property
    def is_too_wide(self):
        return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@contextmanager
def browsing(width, *, dark=False):
    """Start the browser, with a window of this width; skip the test without it."""
    machine = have(debian.chromium)
    # As root and in containers, Chromium's sandbox is not available.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    environment = {**os.environ, **machine.environment, "FONTCONFIG_FILE": str(machine.root / "fonts.conf")}
    axe = (machine.root / "package/axe.min.js").read_text("utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=machine.program("chromium"), args=arguments, env=environment, timeout=PATIENCE * 1000
        )
        try:
            page = browser.new_page(
                viewport={"width": width, "height": 844},
                color_scheme="dark" if dark else "light",
                accept_downloads=True,
            )
            yield Browser(page, axe)
        finally:
            browser.close()
