"""`mmjax show` and `mmjax compare`: stored settings, states, metrics and tests of runs."""

import argparse
import json
import subprocess
import sys

import fiddle as fdl
import jax
import optax
import pytest

from mmjax import config as configs
from mmjax.cli import report_commands
from mmjax.encoders import MLPEncoder
from mmjax.files import DamagedFileError
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.runs import read, stored_settings


def own_loss(logits, target):
    return logits[target]


def parts(model, optimizer, act, **rest):
    return model, optimizer, act, rest


def dump(config):
    """With this file as the experiment's own."""
    return configs.dump_config(config, sys.modules[__name__])


def made(rate=1e-3, **options):
    """A configuration with calls, containers, functions and a call without arguments."""
    model = fdl.Config(
        Model,
        encoders={"image": fdl.Config(MLPEncoder, features=(8, 4))},
        heads={"kind": fdl.Config(Classification, 3)},
    )
    chain = fdl.Config(optax.chain, fdl.Config(optax.adam, rate), fdl.Config(optax.zero_nans))
    return fdl.Config(parts, model=model, optimizer=chain, act=jax.nn.relu, **options)


def test_what_a_stored_configuration_sets():
    rest = {"names": ["a", "b"], "sizes": {"x": 1.5}, "one": (2,), "none": None}
    text = dump(made(**rest, loss=own_loss))
    found = stored_settings.parse_settings(text)
    assert found == {
        "experiment": "parts(...)",
        "model": "Model(...)",
        "model.encoders.image": "MLPEncoder(...)",
        "model.encoders.image.features": "(8, 4)",
        "model.heads.kind": "Classification(...)",
        "model.heads.kind.classes": "3",
        "optimizer": "optax.chain(...)",
        "optimizer.0": "optax.adam(...)",
        "optimizer.0.learning_rate": "0.001",
        "optimizer.1": "optax.zero_nans()",
        "act": "jax.nn.relu",
        "names": "['a', 'b']",
        "sizes": "{x: 1.5}",
        "one": "(2,)",
        "none": "None",
        "loss": "own_loss",
    }


def test_they_are_the_paths_and_values_of_the_table_of_paths():
    """`mmjax.config.flatten_config` says the same of what is set, and the defaults besides."""
    found = stored_settings.parse_settings(dump(made()))
    flat = configs.flatten_config(made())
    same = {path for path in found if path in flat and "(" not in found[path]}
    assert same >= {"model.heads.kind.classes", "optimizer.0.learning_rate"}
    assert {path: found[path] for path in same - {"act"}} == {p: flat[p] for p in same - {"act"}}


def test_nothing_is_imported(tmp_path):
    """A configuration that names a module that is not there is read all the same."""
    text = dump(made()).replace("mmjax.encoders", "gone.away")
    assert (
        stored_settings.parse_settings(text)["model.encoders.image"] == "gone.away.MLPEncoder(...)"
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"root": {"type": "ref", "key": "a"}}'])
def test_damaged_configurations_are_refused(text):
    with pytest.raises(ValueError, match=r"stored configuration is damaged"):
        stored_settings.parse_settings(text)


def test_differences_are_the_paths_that_differ():
    one = {"a": "1", "b": "2", "c": "3"}
    assert stored_settings.tabulate_differences(
        {"x": one, "y": {"a": "1", "b": "5", "d": "4"}}
    ) == [
        ["path", "x", "y"],
        ["b", "2", "5"],
        ["c", "3", "(default)"],
        ["d", "(default)", "4"],
    ]


def write_arm(directory, tests=None, *, rate=1e-3, error=None, log=None, cost=None):
    """An arm's directory: {seed: {metric: value}}, or what an arm that is not finished has."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(dump(made(rate)))
    if tests:
        seeds = {
            str(seed): {"test": test, "validation": test, "best_step": 20 + seed, "steps": 40}
            for seed, test in tests.items()
        }
        result = {"seeds": seeds, "parameters": {"total": 1234}, "cost": cost or {"seconds": 6.25}}
        (directory / "result.json").write_text(json.dumps(result))
    if error:
        (directory / "error.txt").write_text(error)
    for seed, steps in (log or {}).items():
        lines = "".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in steps)
        (directory / f"metrics-seed{seed}.jsonl").write_text(lines)
    return directory


def accuracies(*values, first=0):
    return {
        seed: {"kind/accuracy": value, "kind/loss": 1 - value}
        for seed, value in enumerate(values, first)
    }


def test_the_states_of_arms(tmp_path):
    arms = {
        "finished": write_arm(tmp_path / "a", accuracies(0.5)),
        "failed: ValueError: no good": write_arm(
            tmp_path / "b",
            error="Traceback (most recent call last):\n  x\nKeyError: 1\n\nDuring it:\n\n"
            "Traceback (most recent call last):\n  y\nValueError: no good\nand more\n",
        ),
        "unfinished at step 8, seeds 0 3": write_arm(tmp_path / "c", log={0: [4, 8], 3: [4, 8, 9]}),
        "unfinished, before its first log": write_arm(tmp_path / "d", log={0: []}),
        "not begun": write_arm(tmp_path / "e"),
    }
    assert {read.describe_state(path): path for path in arms.values()} == arms


def test_a_runs_metrics_a_seed_and_over_the_seeds(tmp_path):
    """Of 0.8, 0.9 and 1.0: 0.900 ± 0.248."""
    run = read.read_run(write_arm(tmp_path / "arm", accuracies(0.8, 0.9, 1.0)))
    assert read.make_metrics_table(run) == [
        ["", "seed 0", "seed 1", "seed 2", "mean"],
        ["best step", "20", "21", "22", ""],
        ["kind/accuracy", "0.800", "0.900", "1.000", "0.900 ± 0.248"],
        ["kind/loss", "0.200", "0.100", "0.000", "0.100 ± 0.248"],
    ]
    assert run.cost == {"parameters": 1234, "seconds": 6.25}


def test_of_one_seed_there_is_no_mean(tmp_path):
    run = read.read_run(write_arm(tmp_path / "arm", accuracies(0.8)))
    assert read.make_metrics_table(run)[0] == ["", "seed 0"]


def test_runs_side_by_side_and_tested_on_common_seeds(tmp_path):
    """Differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / √3) = 3.46, p = 1 - t / √(2 + t²) = 0.074."""
    first = read.read_run(write_arm(tmp_path / "first", accuracies(0.5, 0.5, 0.5)))
    second = read.read_run(write_arm(tmp_path / "second", accuracies(0.6, 0.7, 0.8, 0.9)))
    third = read.read_run(write_arm(tmp_path / "third", accuracies(0.6, first=2)))
    assert read.make_comparison_table([first, third])[:3] == [
        ["", "first", "third"],
        ["seeds", "0 1 2", "2"],
        ["kind/accuracy", "0.500 ± 0.000", "0.600"],
    ]
    assert read.make_difference_table([first, second]) == [
        ["", "second"],
        ["kind/accuracy", "0.20 ± 0.25 (p 0.074)"],
    ]
    assert read.make_difference_table([first, second, third])[1] == [
        "kind/accuracy",
        "0.20 ± 0.25 (p 0.074)",
        "",
    ]
    assert read.make_difference_table([first, third]) == []


def write_run(directory, arms):
    """A run's directory of {arm: its tests}."""
    for arm, tests in arms.items():
        write_arm(directory / arm, tests)
    (directory / "config.json").write_text(dump(made()))
    (directory / "run.json").write_text(json.dumps({"arms": list(arms)}))
    record = [{"time": "2024-05-06T07:08:09+00:00", "command": "mmjax run mine.py"}]
    (directory / "provenance.json").write_text(json.dumps(record))
    return directory


def test_arms_of_several_runs_have_names_that_tell_them_apart(tmp_path):
    one = write_run(tmp_path / "one", {"all": accuracies(0.5), "image": accuracies(0.4)})
    two = write_run(tmp_path / "two", {"all": accuracies(0.6)})
    names = [run.name for run in read.read_distinct_runs([one, two, two / "all"])]
    assert names == [f"{one}/all", f"{one}/image", f"{two}/all", str(two / "all")]
    assert [run.name for run in read.read_distinct_runs([one])] == ["all", "image"]


def test_one_run_alone_is_not_compared(tmp_path):
    with pytest.raises(ValueError, match=r"only one run"):
        read.read_distinct_runs([write_arm(tmp_path / "arm", accuracies(0.5))])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not hold a run: it has neither"):
        read.read_runs(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        read.read_runs(tmp_path)
    (tmp_path / "run.json").write_text('{"arms": ["gone"]}')
    with pytest.raises(ValueError, match=r"gone/config\.json is missing"):
        read.read_runs(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is a study; report it with mmjax report"):
        read.read_runs(tmp_path)


# The commands.


def run_command(*argv):
    parser = argparse.ArgumentParser()
    report_commands.add_report_commands(parser.add_subparsers(dest="command", required=True))
    options = parser.parse_args([str(word) for word in argv])
    actions = {
        "report": report_commands.report_study,
        "show": report_commands.show_run,
        "compare": report_commands.compare_runs,
    }
    actions[options.command](options)


def test_show(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"all": accuracies(0.8, 0.9, 1.0), "image": None})
    run_command("show", run)
    shown = capsys.readouterr().out
    for text in (
        "2024-05-06T07:08:09+00:00  mmjax run mine.py",
        "optimizer.0.learning_rate      0.001\n",
        "all: finished",
        "0.900 ± 0.248",
        "cost: parameters 1,234, seconds 6.25",
        "image: not begun",
    ):
        assert text in shown


def test_numbers_beyond_every_float_are_named(tmp_path):
    run = write_run(tmp_path / "run", {"all": accuracies(10**400, 0.9)})
    with pytest.raises(
        DamagedFileError, match=r"result\.json.*kind/accuracy is too large a number"
    ):
        run_command("show", run)


def test_show_of_a_studys_arm(tmp_path, capsys):
    arm = write_arm(tmp_path / "study" / "arms" / "fusion=concat", accuracies(0.5), rate=0.5)
    run_command("show", arm)
    assert "fusion=concat: finished" in capsys.readouterr().out


def test_compare(tmp_path, capsys):
    first = write_arm(tmp_path / "first", accuracies(0.5, 0.5, 0.5))
    second = write_arm(tmp_path / "second", accuracies(0.6, 0.7, 0.8), rate=0.25)
    run_command("compare", first, second)
    shown = " ".join(capsys.readouterr().out.split())
    assert "optimizer.0.learning_rate 0.001 0.25" in shown
    assert "model.heads" not in shown
    assert "kind/accuracy 0.500 ± 0.000 0.700 ± 0.248" in shown
    assert "0.20 ± 0.25 (p 0.074)" in shown


def test_compare_says_what_it_cannot(tmp_path, capsys):
    first = write_arm(tmp_path / "first", accuracies(0.5))
    second = write_arm(tmp_path / "second", log={0: [4]})
    run_command("compare", first, second)
    shown = capsys.readouterr().out
    assert "The runs have the same settings." in shown
    assert "second is unfinished at step 4, seeds 0" in shown
    assert "No paired tests" in shown


def test_unknown_costs_are_shown_as_such(tmp_path, capsys):
    run_command("show", write_arm(tmp_path / "a", accuracies(0.5), cost={"flops": float("nan")}))
    assert "flops unknown" in capsys.readouterr().out


def test_report_needs_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(report_commands.importlib.util, "find_spec", lambda name: None)
    told = r"pandas and pyarrow: pip install 'mmjax\[ablate"
    with pytest.raises(configs.ConfigError, match=told):
        run_command("report", tmp_path)


def test_reading_runs_needs_neither_pandas_nor_matplotlib():
    """Only `report` does."""
    program = (
        "import sys; from mmjax.report import number_format, statistics; "
        "from mmjax.runs import read, stored_settings; from mmjax.cli import report_commands; "
        "print([m for m in ('pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["..", "/etc", "a/b", "", 3])
def test_stored_names_of_arms_lead_nowhere_else(tmp_path, name):
    (tmp_path / "run.json").write_text(json.dumps({"arms": [name]}))
    with pytest.raises(DamagedFileError, match="cannot be the name of a directory"):
        read.read_runs(tmp_path)
