"""What a run tells: the table as text and in Markdown, the curves, the counts."""

import json

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np

from mmjax.intervals import format_mean_interval
from mmjax.train.reporting import learning_curves, run_report


def result(*tests, parameters=1234, seconds=6.5):
    """An arm's result with one test dictionary per seed."""
    return {
        "seeds": {str(i): {"test": t, "best_step": 8 * (i + 1)} for i, t in enumerate(tests)},
        "parameters": {"heads": 4, "total": parameters},
        "cost": {"seconds": seconds, "measured_peak_bytes": 1.25e9},
    }


def test_the_table_of_one_seed_shows_the_metrics_without_the_losses():
    rows = run_report.make_result_rows(
        {
            "all": result(
                {"kind/loss": 9.0, "kind/accuracy": 0.98765, "size/mae": 12.34, "loss": 9}
            ),
            "alone": result(
                {"kind/loss": 9.0, "kind/accuracy": 0.5, "size/mae": 9.9996, "loss": 9}
            ),
        }
    )
    assert rows == [
        ["", "kind accuracy", "size mae", "best step", "parameters", "seconds", "peak MB"],
        ["all", "0.988", "12.3", "8", "1,234", "6.5", "1,250"],
        ["alone", "0.500", "10.000", "8", "1,234", "6.5", "1,250"],
    ]


def test_arms_of_different_tasks_leave_cells_empty():
    left, right = {"left/accuracy": 0.5}, {"right/accuracy": 0.25, "right/loss": 3.0}
    rows = run_report.make_metric_rows({"both": [left | right], "left": [left], "right": [right]})
    assert rows == [
        ["", "left accuracy", "right accuracy"],
        ["both", "0.500", "0.250"],
        ["left", "0.500", ""],
        ["right", "", "0.250"],
    ]


def test_a_cell_over_seeds_is_the_mean_and_its_interval():
    """Of 0.8, 0.9 and 1.0: t(0.975, 2) = 4.303, standard error 0.1 / √3."""
    assert format_mean_interval([0.8, 0.9, 1.0]) == "0.900 ± 0.248"
    assert format_mean_interval([80.0, 90.0, 100.0]) == "90.0 ± 24.8"
    assert format_mean_interval([-0.25]) == "-0.250"
    rows = run_report.make_result_rows({"all": result({"a/f1": 0.8}, {"a/f1": 0.9}, {"a/f1": 1.0})})
    assert rows[1][1:3] == ["0.900 ± 0.248", "8–24"]


def test_a_metric_that_is_nan_is_shown_as_such():
    assert format_mean_interval([float("nan")]) == "nan"
    assert format_mean_interval([float("nan"), 1.0]) == "nan"


def test_markdown_is_a_table_with_one_row_a_line():
    rows = [["", "a", "b"], ["all", "1", "2 ± 1"]]
    assert (
        run_report.format_result_table(rows)
        == "|  | a | b |\n| :-- | --: | --: |\n| all | 1 | 2 ± 1 |\n"
    )


def test_the_table_on_the_screen_holds_every_cell_whole(capsys):
    names = ["digit accuracy", "digit macro_f1", "language accuracy", "rate mae", "rate r2"]
    cells = ["0.981 ± 0.002", "0.982 ± 0.003", "0.973 ± 0.004", "9.1 ± 0.5", "0.912 ± 0.006"]
    run_report.print_result_table(
        [["", *names, "parameters", "seconds"], ["everything", *cells, "123,456", "78.9"]]
    )
    shown = capsys.readouterr().out
    for text in [
        "everything",
        "123,456",
        "78.9",
        *(c for cell in cells for c in cell.split(" ± ")),
    ]:
        assert text in shown
    for name in names:
        assert all(word in shown for word in name.split())


def test_describe_says_what_is_about_to_be_trained(toy, capsys):
    run_report.print_arm("all", toy.experiment(), (3, 5), jax.devices()[:2])
    shown = capsys.readouterr().out
    for words in (
        "all: toy",
        "128 train, 50 validation, 60 test",
        "sequence, vector -> kind, size",
        "seeds 3 5",
        "2 x ",
    ):
        assert words in shown


def test_parameters_are_counted_by_part():
    params = {
        "heads": {"output": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}},
        "encoders": {"a": jnp.zeros((2, 5)), "b": jnp.zeros(())},
    }
    assert run_report.count_parameters(params) == {"encoders": 11, "heads": 16, "total": 27}


def log(directory, seed, values, every=4):
    """A log of one seed: a line of training, then one of validation, at every step."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"metrics-seed{seed}.jsonl").open("w") as file:
        for step, value in enumerate(values, 1):
            file.write(json.dumps({"step": every * step, "train/loss": 9.0}) + "\n")
            both = {"validation/loss": 1 - value, "validation/kind/accuracy": value}
            file.write(json.dumps({"step": every * step, **both}) + "\n")


def test_read_log_gives_each_metric_its_steps(tmp_path):
    log(tmp_path, 0, [0.25, 0.5])
    assert learning_curves._read_series(tmp_path / "metrics-seed0.jsonl") == {
        "train/loss": [(4, 9.0), (8, 9.0)],
        "validation/loss": [(4, 0.75), (8, 0.5)],
        "validation/kind/accuracy": [(4, 0.25), (8, 0.5)],
    }


class Lines:
    """Takes the place of an axis and remembers what was drawn."""

    def plot(self, steps, values, **_):
        self.steps, self.mean = list(steps), np.array(values)

    def fill_between(self, steps, low, high, **_):
        self.low, self.high = np.array(low), np.array(high)


def test_a_curve_is_the_mean_over_seeds_as_far_as_all_of_them_go():
    lines = Lines()
    runs = [[(4, 1.0), (8, 2.0), (12, 9.0)], [(4, 3.0), (8, 6.0)]]
    learning_curves._draw_validation_curve(lines, runs, "all", {"color": "k"})
    assert lines.steps == [4, 8]
    np.testing.assert_array_equal(lines.mean, [2.0, 4.0])
    np.testing.assert_array_equal(lines.low, [1.0, 2.0])
    np.testing.assert_array_equal(lines.high, [3.0, 6.0])


def test_the_curves_are_an_image_that_depends_on_the_logs(tmp_path):
    """Arms with different metrics, seeds that stopped early: all in one picture."""
    images = []
    for values in ([0.2, 0.4, 0.8], [0.2, 0.9, 0.8]):
        log(tmp_path / "all", 0, values)
        log(tmp_path / "all", 1, [0.3, 0.5])
        log(tmp_path / "alone", 0, [0.1])
        log(tmp_path / "alone", 1, [0.1, 0.2, 0.3])
        learning_curves.draw_learning_curves(tmp_path, ["all", "alone"], (0, 1))
        images.append(matplotlib.image.imread(tmp_path / "learning_curves.png"))
    assert images[0].shape == images[1].shape
    assert min(images[0].shape[:2]) > 200
    assert not np.array_equal(*images)


def test_training_is_drawn_for_losses_only():
    log = {
        "train/loss/a": [(2, 1.0), (4, 0.5)],
        "train/loss/b": [(2, 3.0), (4, 1.5), (6, 9.0)],
        "train/weight/a": [(2, 7.0)],
    }
    assert learning_curves._select_training_losses(log, "validation/a/loss") == [(2, 1.0), (4, 0.5)]
    assert learning_curves._select_training_losses(log, "validation/loss") == [(2, 2.0), (4, 1.0)]
    assert learning_curves._select_training_losses(log, "validation/a/accuracy") == []
    assert learning_curves._select_training_losses(log, "validation/c/loss") == []


def test_the_selected_step_of_each_seed_is_marked_at_its_value(tmp_path):
    marked = []

    class Axis:
        def plot(self, step, value, *_, **__):
            marked.append((step, value))

    runs = [[(4, 1.0), (8, 2.0)], [(4, 3.0)], [(4, 5.0)]]
    seed = {"best_step": 8, "steps": 12, "test": {}, "validation": {}}
    result = {"seeds": {"7": seed}, "parameters": {"total": 1}, "cost": {}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    steps = [*learning_curves._read_selected_steps(tmp_path, (7, 9)), 4]
    assert steps == [8, None, 4]
    learning_curves._draw_selected_steps(Axis(), runs, steps, {"color": "k"})
    assert marked == [(8, 2.0), (4, 5.0)]
    assert learning_curves._read_selected_steps(tmp_path / "none", (7,)) == [None]


def test_every_arm_looks_different():
    styles = learning_curves.make_line_styles()[:7]
    assert len({s["color"] for s in styles}) == len({str(s["linestyle"]) for s in styles}) == 7
