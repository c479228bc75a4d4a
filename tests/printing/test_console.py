"""Tables on a terminal: of any width, with every header and number in full."""

import io
import itertools
import re

import pytest

from mmjax.printing import console, table_layout

NAMES = {
    "short": lambda i: f"arm{i}",
    "long": lambda i: f"fusion=low_rank_{i},learning_rate=0.0{i},balancer=uncertainty",
    "words": lambda i: f"a class of many words that goes on and on, number {i}",
    "wide": lambda i: f"模态{i}",
}


def make_rows(tasks, arms, kind):
    """A table of results in which no two numbers are equal."""
    numbers = (f"0.{n:04d} ± 0.{n + 5000:04d}" for n in itertools.count(1))
    metrics = [f"task{t} {m}" for t in range(tasks) for m in ("accuracy", "macro_f1")]
    header = ["", *metrics, "parameters", "seconds"]
    return [header] + [
        [NAMES[kind](i), *itertools.islice(numbers, len(metrics)), f"{i + 1},234", f"{i}.5"]
        for i in range(arms)
    ]


def squeeze(text):
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("arms", [1, 2, 4, 20])
@pytest.mark.parametrize("tasks", [1, 4, 12])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_header_and_number_is_there_in_full(width, tasks, arms, kind):
    rows = make_rows(tasks, arms, kind)
    shown = table_layout.format_table(rows, width)
    words = shown.split()
    assert all(word in words for name in rows[0] for word in name.split())
    for name, *numbers in rows[1:]:
        assert all(number in shown for number in numbers)
        assert all(word in words for word in name.split())
    longest = max(table_layout.display_width(name) for name, *_ in rows)
    assert max(map(table_layout.display_width, shown.splitlines())) <= max(width, longest)
    assert "…" not in shown


def read_back(shown, name, header):
    """The number below a header in a row, found by where it ends in its block."""
    for block in shown.split("\n\n"):
        head, _, body = block.partition("─")
        lines = head.splitlines()
        for line in body.splitlines()[1:]:
            if line.startswith(name + " "):
                ends = {m.end(): m[0] for m in re.finditer(r"\S+( ± \S+)?", line)}
                for end, number in ends.items():
                    column = [text[:end].split(" " * 2)[-1].strip() for text in lines]
                    if " ".join(filter(None, column)) == header:
                        return number
    return None


def test_numbers_stand_below_their_headers():
    rows = make_rows(4, 20, "short")
    shown = table_layout.format_table(rows, 80)
    for name, *numbers in rows[1:]:
        for header, number in zip(rows[0][1:], numbers, strict=True):
            assert read_back(shown, name, header) == number


def test_a_table_that_fits_is_one_block():
    rows = [["", "digit accuracy", "seconds"], ["all", "0.981 ± 0.002", "78.9"], ["x", "0.5", "1"]]
    assert table_layout.format_table(rows, 80).splitlines() == [
        "     digit accuracy  seconds",
        "────────────────────────────",
        "all   0.981 ± 0.002     78.9",
        "x               0.5        1",
    ]
    assert table_layout.format_table(rows, 27).splitlines() == [
        "             digit",
        "          accuracy  seconds",
        "───────────────────────────",
        "all  0.981 ± 0.002     78.9",
        "x              0.5        1",
    ]


def test_few_arms_of_many_metrics_are_transposed():
    shown = table_layout.format_table(make_rows(4, 2, "short"), 80).splitlines()
    assert shown[0].split() == ["arm0", "arm1"]
    assert shown[2].split() == [
        "task0",
        "accuracy",
        "0.0001",
        "±",
        "0.5001",
        "0.0009",
        "±",
        "0.5009",
    ]


def test_the_metrics_of_a_task_stay_together():
    blocks = table_layout.format_table(make_rows(4, 20, "short"), 80).split("\n\n")
    for block in blocks:
        head = block.partition("─")[0].split()
        assert head.count("accuracy") == head.count("macro_f1")


def test_names_wider_than_the_screen_make_lists():
    shown = table_layout.format_table([["", "a b", "c"], ["x" * 70, "1", ""], ["y", "2", "3"]], 60)
    assert shown == f"{'x' * 70}\n  a b  1\n\ny\n  a b  2\n  c    3"


def test_columns_of_words_break_at_spaces():
    rows = [
        ["arm", "changes"],
        ["one", "model.fusion=Gated(width=64), optimizer.learning_rate=0.01"],
    ]
    shown = table_layout.format_table(rows, 50, words=2).splitlines()
    assert shown[2:] == [
        "one  model.fusion=Gated(width=64),",
        "     optimizer.learning_rate=0.01",
    ]


def test_numbers_stay_to_the_right_in_a_second_block():
    rows = [["part", "module", "FLOPs"], ["a" * 20, "b" * 30, "1"], ["c", "d", "234"]]
    assert table_layout.format_table(rows, 54, words=2).split("\n\n")[1].splitlines()[2:] == [
        "a" * 20 + "      1",
        "c" + " " * 19 + "    234",
    ]


def test_markup_and_controls_are_shown_as_they_are(capsys):
    console.print_table([["", "[bold]a[/]"], ["[red]", "\x1b[31m1\n2"]], "[/] \x1b title")
    shown = capsys.readouterr().out
    for text in ("[bold]a[/]", "[red]", r"\x1b[31m1\n2", r"[/] \x1b title"):
        assert text in shown
    assert "\x1b" not in shown


def test_what_the_terminal_cannot_encode_is_escaped():
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    console.print_text("größe ─ 模", file=file)
    file.flush()
    assert file.buffer.getvalue().decode("latin-1") == "größe \\u2500 \\u6a21\n"
