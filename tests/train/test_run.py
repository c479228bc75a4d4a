"""`run`: arms and seeds to results, table, curves; finished arms are kept."""

import json

import jax
import numpy as np
import pytest

from mmjax.train import report
from mmjax.train.evaluate import mean_interval
from mmjax.train.run import choose_devices, load_best, run
from mmjax.train.run import test_again as retest

SEEDS = (0, 3)


@pytest.fixture
def twice(toy, tmp_path):
    """Two arms of two seeds on one device, and how often an arm was made."""
    made = []

    def make(name, **options):
        def experiment():
            made.append(name)
            return toy.experiment(epochs=1, **options)

        return experiment

    arms = {"all": make("all"), "slow": make("slow", steps_per_dispatch=8)}
    results = run(arms, workdir=tmp_path, seeds=SEEDS, devices=1)
    return toy, tmp_path, arms, results, made


def test_a_run_leaves_what_it_promises(twice, capsys):
    toy, workdir, arms, results, made = twice
    assert json.loads((workdir / "summary.json").read_text()) == results
    assert (workdir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert set(results) == set(arms)
    for arm, result in results.items():
        assert list(result["seeds"]) == ["0", "3"]
        assert result["parameters"]["total"] == sum(
            n for part, n in result["parameters"].items() if part != "total"
        )
        assert result["cost"]["seconds"] > 0
        assert (workdir / arm / "metrics-seed3.jsonl").exists()
    # How many steps a program makes is no matter of the result.
    for seed in ("0", "3"):
        one, other = (results[arm]["seeds"][seed] for arm in arms)
        assert one["test"] == pytest.approx(other["test"], rel=1e-4)

    # Finished arms are not trained again, and give the same results.
    assert made == ["all", "slow"]
    again = run(arms, workdir=workdir, seeds=SEEDS, devices=1, resume=True)
    assert again == results
    assert made == ["all", "slow"]

    # What was saved is what was tested.
    tested = retest(toy.experiment(epochs=1), workdir / "all", seeds=SEEDS, devices=1)
    assert tested == [results["all"]["seeds"][s]["test"] for s in ("0", "3")]
    params = load_best(toy.experiment(epochs=1), workdir / "all", seeds=SEEDS)
    assert {x.shape[0] for x in jax.tree.leaves(params)} == {2}
    total = sum(x.size for x in jax.tree.leaves(params)) // 2
    assert total == results["all"]["parameters"]["total"]


def test_a_seed_among_several_has_the_numbers_of_its_run_alone(twice, tmp_path_factory):
    toy, _, _, results, _ = twice
    directory = tmp_path_factory.mktemp("alone")
    alone = run({"all": lambda: toy.experiment(epochs=1)}, workdir=directory, seeds=(3,), devices=1)
    one, among = (r["all"]["seeds"]["3"] for r in (alone, results))
    assert one["test"] == pytest.approx(among["test"], rel=1e-3)
    assert one["best_step"] == among["best_step"]


def test_asking_for_too_many_devices_is_refused():
    with pytest.raises(ValueError, match="9 devices were asked for, but there are 8"):
        choose_devices(9)


def result(*values):
    tests = {str(i): {"test": {"a/accuracy": v, "a/loss": 1.0}} for i, v in enumerate(values)}
    return {"seeds": tests, "parameters": {"total": 1234}, "cost": {"seconds": 5.04}}


def test_the_table_says_mean_and_interval():
    rows = report.table({"one": result(0.5), "three": result(0.7, 0.8, 0.9)})
    assert rows[0] == ["", "a accuracy", "parameters", "seconds"]
    assert rows[1] == ["one", "0.500", "1,234", "5.0"]
    # Student's t with 2 degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248
    assert rows[2][1] == "0.800 ± 0.248"
    assert report.markdown(rows).splitlines()[:2] == [
        "|  | a accuracy | parameters | seconds |",
        "| :-- | --: | --: | --: |",
    ]


def test_intervals_cover_the_mean_at_their_rate():
    """95% of the intervals from five normal draws hold the true mean."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    inside = [abs(mean - 3.0) <= half for mean, half in map(mean_interval, draws.tolist())]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
