"""A tab of a browser with the interactive page."""

import time
from contextlib import contextmanager

DESKTOP, PHONE = (1400, 900), (390, 844)


class Tab:
    """A tab with the page; it fails for messages in the console that no test expects."""

    def __init__(self, context, address):
        self.page = context.new_page()
        self.messages: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(address)
        self.until("document.body.dataset.ready")

    def until(self, expression, seconds=30.0):
        """Wait until an expression is true, which the page's policy forbids playwright to do itself."""
        deadline = time.monotonic() + seconds
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {expression}"
            self.page.wait_for_timeout(25)
        return value

    def until_data(self, name, value):
        self.until(f"document.body.dataset.{name} === {value!r}")

    def until_drawn(self, clip, shown=""):
        """Wait until a clip's film is drawn, with the overlay whose name has `shown`."""
        self.until(f"(document.body.dataset.shown ?? '').startsWith({clip + '#0#'!r})")
        self.until(f"document.body.dataset.shown.includes({shown!r})")

    @property
    def frame(self):
        return int(self.page.evaluate("document.body.dataset.shown.split('#')[2]"))

    def texts(self, selector):
        return self.page.eval_on_selector_all(selector, "elements => elements.map(e => e.textContent)")

    def pixels(self, canvas):
        return self.page.evaluate(f"document.querySelector('{canvas}').toDataURL()")

    def query(self):
        self.page.wait_for_timeout(200)  # the address follows the state with a short delay
        return self.page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")


@contextmanager
def open_tab(browser, server, query="", size=DESKTOP, scheme="light"):
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    try:
        yield Tab(context, server.address + query)
    finally:
        context.close()
