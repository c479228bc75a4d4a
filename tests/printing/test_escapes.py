"""Escapes: what others wrote can neither act on a terminal nor become markup."""

import html.parser

import pytest

from mmjax.printing import escapes

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07",
    "[red]x[/]",
    "<script>alert(1)</script>",
    "a|b",
    "`rm`",
    "$x$",
    "\\",
    "one\ntwo",
    "\u202egnp.exe",
    "\ud800",
    "x\x00\x9by",
)


def test_control_characters_become_visible():
    shown = escapes.escape_control_characters("a\x1b[31m\tb\nc\u202e\ud800\x9b")
    assert shown == r"a\x1b[31m\tb\nc\u202e\ud800\x9b"
    assert escapes.escape_control_characters("a\tb\n\x1b", keep="\n\t") == "a\tb\n\\x1b"


@pytest.mark.parametrize(
    "text", ["plain", "größe ± 1", "日本語", "नमस्ते", "می\u200cخواهم", "a\u00a0b"]
)
def test_words_of_any_language_are_left_alone(text):
    assert escapes.escape_control_characters(text) == text


def test_markdown_has_no_tag_link_cell_or_emphasis_left():
    shown = escapes.escape_markdown("<b> a|b *c* _d_ [e](f) `g` $h$ ~i~ \\ &lt; x_y a < b\nnext")
    assert shown == (
        r"&lt;b> a\|b \*c\* \_d\_ \[e\](f) \`g\` \$h\$ \~i\~ \\ &amp;lt; x_y a < b next"
    )


def test_what_needs_no_escape_in_markdown_stays_readable():
    text = "digit accuracy ↑, low_rank, cagrad(c=0.4), p < 0.001, 12.3 ± 0.4, a & b"
    assert escapes.escape_markdown(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_html_gives_the_text_back_and_no_tag(text):
    class Reader(html.parser.HTMLParser):
        tags, words = 0, ""

        def handle_starttag(self, tag, attrs):
            self.tags += 1

        def handle_data(self, data):
            self.words += data

    reader = Reader()
    reader.feed(escapes.escape_html(text))
    reader.close()
    assert reader.tags == 0
    assert reader.words == escapes.escape_control_characters(text.replace("\n", " "))


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_has_no_active_character_left(text):
    shown = escapes.escape_latex(text)
    bare = shown
    for command in {*escapes.LATEX_REPLACEMENTS.values()}:
        bare = bare.replace(command, "")
    assert not set("\\{}$&#^_%~|<>[]*`\n\x1b\x07") & set(bare)
    assert shown.count("{") - shown.count(r"\{") == shown.count("}") - shown.count(r"\}")


def test_a_table_in_markdown():
    rows = [["", "a", "b"], ["all", "1", "2 ± 1"]]
    assert escapes.format_markdown_table(rows) == (
        "|  | a | b |\n| :-- | --: | --: |\n| all | 1 | 2 ± 1 |\n"
    )
