"""The HTML page in a headless browser: it renders, its figures load, it sorts, nothing leaves."""

import pytest

from mmjax.report import html_page as pages
from tests.report import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed"),
]

COLUMN = """
[...document.querySelectorAll("#arms tbody")].map(
  (body) => [...body.rows].map((row) => row.cells[%d].dataset.value))
"""


@pytest.fixture(scope="module")
def page(reported, tmp_path_factory):
    """The report, opened; tests that sort begin by loading it again."""
    with browser.open_page(reported / "report.html", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.slow
def test_it_renders_and_its_figures_load(page):
    assert page.evaluate("document.title") == "fusions_and_balancers"
    assert page.evaluate("document.querySelectorAll('table').length") == 9
    assert page.evaluate("document.images.length") == 8
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.querySelector('table').getBoundingClientRect().height") > 300


@pytest.mark.slow
def test_nothing_but_the_file_itself_is_asked_for(page):
    asked = [url for url in page.requests if not url.startswith("data:image/png;base64,")]
    assert [url.startswith("file://") and url.endswith("/report.html") for url in asked] == [True]


def test_a_request_would_be_seen_and_is_forbidden(tmp_path):
    """An image from elsewhere: asked for without the page's policy, and not under it."""
    image = '<img src="http://127.0.0.1:9/x.png">'
    guarded = pages.make_page("guarded", [image])
    start = guarded.index("<meta http-equiv")
    free = guarded[:start] + guarded[guarded.index(">", start) + 1 :]
    asked = {}
    for name, text in (("guarded", guarded), ("free", free)):
        (tmp_path / f"{name}.html").write_text(text)
        with browser.open_page(tmp_path / f"{name}.html", tmp_path / name) as opened:
            opened.evaluate("0")
            asked[name] = [url for url in opened.requests if url.startswith("http")]
            blocked = opened.blocked
        assert (name == "guarded") == ("csp" in blocked)
    assert asked["free"] == ["http://127.0.0.1:9/x.png"]


def numbers(texts):
    return [float(text) for text in texts if text]


def test_a_click_sorts_by_numbers_and_a_second_one_turns_it(page):
    page.open_again()
    head = "document.querySelectorAll('#arms th')[2]"
    before = page.evaluate(COLUMN % 2)
    page.evaluate(f"{head}.querySelector('button').click()")
    assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
    rising = page.evaluate(COLUMN % 2)
    assert [numbers(body) for body in rising] == [sorted(numbers(body)) for body in before]
    assert rising != before
    assert rising[1][-1] == ""  # what is not there comes last
    page.evaluate(f"{head}.querySelector('button').click()")
    assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
    falling = page.evaluate(COLUMN % 2)
    assert numbers(falling[0]) == numbers(rising[0])[::-1]
    assert falling[1][-1] == ""


def test_words_sort_by_the_alphabet_and_one_head_only_is_marked(page):
    page.open_again()
    for place in (2, 0):
        page.evaluate(f"document.querySelectorAll('#arms th button')[{place}].click()")
    names = page.evaluate(COLUMN % 0)
    assert names == [sorted(body) for body in names]
    assert page.evaluate("document.querySelectorAll('#arms [aria-sort]').length") == 1


def test_the_keyboard_sorts(page):
    page.open_again()
    page.evaluate("document.querySelector('#arms').parentNode.focus()")
    for _ in range(3):
        page.press("Tab", 9)
    assert page.evaluate("document.activeElement.textContent") == "digit accuracy"
    page.press("Enter", 13)
    first = numbers(page.evaluate(COLUMN % 2)[0])
    assert first == sorted(first)
    assert page.evaluate("document.querySelectorAll('#arms th')[2].ariaSort") == "ascending"


def test_a_phone_scrolls_tables_and_not_the_page(reported, tmp_path):
    with browser.open_page(reported / "report.html", tmp_path, width=390) as opened:
        assert opened.evaluate("document.documentElement.scrollWidth") == 390
        assert opened.evaluate("document.querySelector('#arms').scrollWidth") > 390
