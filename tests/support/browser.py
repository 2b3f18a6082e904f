"""Pages in a headless browser: they load without requests or console messages, and their animations play."""


def open_page(browser, page, width, scheme):
    """Return the page after loading, checked for errors and requests."""
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=True)
    messages, requests = [], []
    view.on("console", lambda message: messages.append(message.text))
    view.on("pageerror", lambda error: messages.append(str(error)))
    view.on("request", lambda request: requests.append(request.url))
    view.goto(page.as_uri())
    view.wait_for_load_state("networkidle")
    assert not messages and not view.evaluate("'broken' in document.body.dataset")
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    light = view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    return view


def animations_play(view, section):
    """Return whether all animations of a section play within ten seconds."""
    view.evaluate(f"document.querySelector('{section} video').scrollIntoView()")
    expression = f"[...document.querySelectorAll('{section} video')].every(video => video.currentTime > 0)"
    for _ in range(100):
        if view.evaluate(expression):
            return True
        view.wait_for_timeout(100)
    return False


def download_text(view, name):
    """Return the text of a table embedded in the page."""
    with view.expect_download() as download:
        view.click(f"a[download='{name}']")
    assert download.value.suggested_filename == name
    return download.value.path().read_text(encoding="utf-8")
