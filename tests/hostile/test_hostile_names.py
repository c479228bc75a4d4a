"""Names that are terminal escapes, rich markup, HTML, Markdown or LaTeX, through every command.

Each is shown as it is, apart from control characters, which are made visible.
"""

import html.parser
import json
import re

import jax
import jaxtyping
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from mmjax import cli
from mmjax.data import progress_bars
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.data.describe import announce as data_summary
from mmjax.data.describe import plot_examples, tables
from mmjax.printing.escapes import escape_control_characters
from mmjax.report import study_files, write_report
from mmjax.study import results
from mmjax.study.live_display import StudyDisplay
from mmjax.study.study_plan import make_study_plan
from mmjax.train.reporting import run_report as run_report
from mmjax.train.reporting.progress_bar import show_progress
from mmjax.types import Batch
from tests.study import small_study

NAMES = (
    "[red]",
    "[/]",
    "[bold]x[/bold]",
    "esc\x1b[2J\x1b]0;title\x07",
    "<script>alert(1)<!--",
    "a|b`c`",
    "$x_$ \\input{y} % & # ~ ^",
    "*_[l](u)",
    "two\nlines",
    "\u202egnp",
)


def squeeze(text):
    return re.sub(r"\s", "", text)


def assert_shown(text, names=NAMES):
    """Every name is there, whatever the line breaks, and nothing acts on the terminal."""
    assert not set("\x1b\x07\u202e") & set(text)
    for name in names:
        assert squeeze(escape_control_characters(name)) in squeeze(text), name


@pytest.fixture
def everywhere(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table_of_a_run(everywhere, capsys):
    tests = {arm: [{f"{task}/accuracy": 0.5 for task in NAMES}] for arm in NAMES}
    run_report.print_result_table(run_report.make_metric_rows(tests))
    assert_shown(capsys.readouterr().out)


def test_the_table_of_a_run_in_markdown():
    tests = {arm: [{"kind/accuracy": 0.5}] for arm in NAMES}
    text = run_report.format_result_table(run_report.make_metric_rows(tests))
    assert len(text.splitlines()) == 2 + len(NAMES)
    assert not re.search(r"<\w|(?<!\\)`|\x1b", text)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()} == {3}


@pytest.mark.parametrize("name", NAMES)
def test_the_bars(name, capsys):
    with show_progress(name, 2, 0, 8) as advance:
        advance(2, f"{name} 1.000")
    assert list(progress_bars.track_progress([1, 2], name, 2)) == [1, 2]
    with progress_bars.show_download_progress(name, 3) as advance_bytes:
        advance_bytes(3)
    shown = capsys.readouterr()
    assert_shown(shown.out, [name])
    assert_shown(shown.err, [name])


@pytest.fixture
def _no_annotations():
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


@pytest.mark.usefixtures("_no_annotations")
def test_the_display_of_a_study(everywhere, tmp_path, capsys):
    plan = make_study_plan("small", small_study.STUDY, module=small_study)
    homes = {name: tmp_path / name for name in plan.arms}
    for name in NAMES:
        display = StudyDisplay(plan, homes)
        with display, display.show(name, 2, 0, 8, replicas=1) as advance:
            advance(1, {name: 1.0})
            display.bar.refresh()
        assert not set("\x1b\x07\u202e") & set(capsys.readouterr().out)


def write_run(directory, name):
    """A finished run whose every text is hostile."""
    leaf = {"type": "leaf", "value": name}
    config = {
        "root": {"type": "ref", "key": "a"},
        "objects": {
            "a": {
                "type": {"module": "fiddle._src.config", "name": "Config"},
                "items": [["Attr(name='value')", leaf]],
                "metadata": {"type": "ref", "key": "b"},
            },
            "b": {
                "type": {"module": "x", "name": "y"},
                "items": [
                    ["Attr(name='fn_or_cls')", {"type": "pyref", "module": name, "name": name}]
                ],
            },
        },
    }
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    test = {f"{name}/accuracy": 0.5}
    seeds = {
        str(seed): {"test": test, "validation": test, "best_step": 3, "steps": 4} for seed in (0, 1)
    }
    result = {"seeds": seeds, "cost": {name: 1.5}, "parameters": {"total": 7}}
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "provenance.json").write_text(json.dumps([{"time": name, "command": name}]))


@pytest.mark.parametrize("name", NAMES)
def test_show_and_compare(everywhere, name, tmp_path, capsys):
    folder = name.replace("/", "")
    for other in ("one", "two"):
        write_run(tmp_path / other / folder, name + other)
    cli.script(["show", str(tmp_path / "one" / folder)])
    assert_shown(capsys.readouterr().out, [name])
    cli.script(["compare", str(tmp_path / "one" / folder), str(tmp_path / "two" / folder)])
    assert_shown(capsys.readouterr().out, [name])


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_run_and_an_error_of_a_command(everywhere, name, tmp_path, capsys):
    write_run(tmp_path / "run", "x")
    (tmp_path / "run" / "result.json").unlink()
    error = name.replace("\n", " ")  # the first line is shown
    (tmp_path / "run" / "error.txt").write_text(error)
    cli.script(["show", str(tmp_path / "run")])
    assert_shown(capsys.readouterr().out, [error])
    with pytest.raises(SystemExit):
        cli.script(["show", str(tmp_path / name)])
    assert not set("\x1b\x07\u202e") & set(capsys.readouterr().err)


def made(names):
    rng = np.random.default_rng(0)
    there = {m: np.ones(20, bool) for m in names}
    batch = Batch(
        inputs={m: rng.normal(size=(20, 3)).astype("f") for m in names},
        present=there,
        lengths={},
        targets={m: rng.integers(0, len(names), 20).astype(np.int32) for m in names},
        labeled=there,
    )
    modalities = {m: Modality((3,)) for m in names}
    tasks = {m: Task("classification", tuple(names)) for m in names}
    return Dataset(names[3], modalities, tasks, dict.fromkeys(("train", "test"), Arrays(batch)))


def test_describe(everywhere, tmp_path, capsys):
    data = made(NAMES)
    tables.print_tables(tables.describe_dataset(data))
    assert_shown(capsys.readouterr().out)
    plot_examples.draw_examples(made(NAMES[:5]), tmp_path / "sheet.png")
    assert matplotlib.image.imread(tmp_path / "sheet.png").std() > 0
    data_summary.announce_once(
        data_summary.summarize_dataset(data, dict.fromkeys(NAMES, 20), data.splits["train"].batch)
    )
    assert not set("\x1b\x07\u202e") & set(capsys.readouterr().err)


def write_study(directory):
    """A study whose name, task, labels, settings, command and errors are hostile."""
    task = "[red]<b>|$`\x1b"
    metric = f"{task}/accuracy"
    arms = {f"arm{i}": label for i, label in enumerate(NAMES)}
    rows = [
        (arm, seed, split, step, metric, 0.5 + 0.01 * i + 0.02 * seed, label)
        for i, (arm, label) in enumerate(arms.items())
        for seed in (0, 1, 2)
        for split, step in (("test", 10), ("validation", 5), ("validation", 10))
    ]
    frame = pd.DataFrame(rows, columns=[*results.RESULT_COLUMNS, "x"])
    frame.to_parquet(directory / results.RESULTS_FILE)
    planned = {
        arm: {"labels": {"x": label}, "role": "arm", "of": None, "changes": {label: label}}
        for arm, label in arms.items()
    }
    planned["bad"] = {"labels": {"x": "bad"}, "role": "arm", "of": None, "changes": {}}
    (directory / "arms" / "bad").mkdir(parents=True)
    (directory / "arms" / "bad" / "error.txt").write_text("<script>\x1b[2J [/]")
    plan = {
        "name": NAMES[4],
        "metric": metric,
        "direction": "max",
        "directions": {metric: "max"},
        "baseline": "arm0",
        "seeds": [0, 1, 2],
        "axes": ["x"],
        "tasks": [task],
        "arms": planned,
        "base": {"data": NAMES[4], "examples": {"train": 3}, "epochs": 1, "batch_size": 2},
    }
    (directory / "study.json").write_text(json.dumps(plan))
    start = {
        "time": NAMES[3],
        "command": NAMES[4],
        "platform": NAMES[5],
        "versions": {"x": NAMES[6]},
    }
    (directory / "provenance.json").write_text(json.dumps([start]))
    return directory


class Reader(html.parser.HTMLParser):
    """Collects the tags and the words of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.words = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words += data


def test_the_report(tmp_path):
    directory = write_study(tmp_path)
    write_report.write_report(directory)
    markdown, latex, page = (
        (directory / f"report.{kind}").read_text() for kind in ("md", "tex", "html")
    )
    tables = {path: path.read_text() for path in (directory / "tables").iterdir()}
    for text in (markdown, latex, page, *tables.values()):
        assert not set("\x1b\x07\u202e") & set(text)
    assert not re.search(r"<[a-z!/]|(?<!\\)`", markdown)
    reader = Reader()
    reader.feed(page)
    assert page.count("<script>") == 1 and page.count("<!--") == 0
    assert not {"b"} & reader.tags
    for name in NAMES:
        assert squeeze(escape_control_characters(name.replace("\n", " "))) in squeeze(reader.words)
    for text in (text for path, text in tables.items() if path.suffix == ".tex"):
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
        assert r"\input{y}" not in text
    read = study_files.read_study(directory)
    assert read.starts[0]["command"] == NAMES[4]


def test_what_is_about_to_be_trained(toy, capsys):
    run_report.print_arm(NAMES[3] + NAMES[0], toy.experiment(), (0,), jax.devices()[:1])
    assert_shown(capsys.readouterr().out, [NAMES[3], NAMES[0]])
