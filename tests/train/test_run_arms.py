"""`run`: arms and seeds from data to table."""

import json

import jax
import optax
import pytest

from mmjax import files
from mmjax.train.best_variables import evaluate_best, load_best
from mmjax.train.run_arms import run

SEEDS = (0, 1)


class Makers:
    """Makes the arms' experiments and counts how often.

    The learning rate is so high that the last parameters are not the best ones for every seed.
    """

    def __init__(self, toy):
        self.toy, self.made = toy, []

    def arms(self):
        def make(arm, model):
            self.made.append(arm)
            return self.experiment(model=model)

        both = self.toy.model()
        alone = both.clone(encoders={"vector": both.encoders["vector"]})
        return {
            "all": lambda: make("all", both),
            "vector": lambda: make("vector", alone),
        }

    def experiment(self, **options):
        return self.toy.experiment(optimizer=optax.adam(0.1), monitor="kind/accuracy", **options)


@pytest.fixture(scope="module")
def done(toy, tmp_path_factory):
    """A run of two arms and two seeds: its directory and what `run` returned."""
    workdir = tmp_path_factory.mktemp("run")
    results = run(Makers(toy).arms(), workdir=workdir, seeds=SEEDS, devices=1)
    return workdir, results


def test_results_hold_every_arm_and_seed(done):
    workdir, results = done
    assert json.loads((workdir / "summary.json").read_text()) == results
    assert list(results) == ["all", "vector"]
    seeds = [one for result in results.values() for one in result["seeds"].values()]
    assert any(one["best_params_sha256"] != one["last_params_sha256"] for one in seeds)
    for arm, result in results.items():
        assert files.read_json(workdir / arm / "result.json") == result
        assert result.keys() == {"monitor", "seeds", "parameters", "cost"}
        assert list(result["seeds"]) == ["0", "1"]
        for one in result["seeds"].values():
            assert one["test"].keys() == one["validation"].keys()
            assert {"kind/accuracy", "kind/macro_f1", "size/mae", "size/r2"} < one["test"].keys()
            assert one["steps"] == 3 * 8
            assert one["best_step"] in (8, 16, 24)
        first, second = result["seeds"].values()
        assert first["last_params_sha256"] != second["last_params_sha256"]
        assert result["cost"]["seconds"] >= result["cost"]["first_dispatch_seconds"] > 0
        assert result["cost"]["examples_per_second"] > 0


def test_an_arm_has_the_parameters_of_its_own_parts(done):
    """Vector 6 -> 8 and sequence 3, 5 -> 5 meet in 8 hidden units, with biases."""
    _, results = done
    both, alone = (r["parameters"] for r in results.values())
    assert both["encoders_vector"] == alone["encoders_vector"] == 6 * 8 + 8
    assert "encoders_sequence" in both and "encoders_sequence" not in alone
    assert both["heads_kind"] == alone["heads_kind"] == 8 * 4 + 4
    for counts in (both, alone):
        assert counts["total"] == sum(n for part, n in counts.items() if part != "total")


def test_the_table_and_the_curves_are_there(done):
    workdir, results = done
    rows = (workdir / "table.md").read_text().splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| all |") and rows[3].startswith("| vector |")
    mean = sum(s["test"]["kind/accuracy"] for s in results["all"]["seeds"].values()) / 2
    assert f"| {mean:.3f} ± " in rows[2]
    assert (workdir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    for seed in SEEDS:
        assert list((workdir / "all" / "tensorboard" / f"seed{seed}").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_each_seed_of_two_is_the_run_of_it_alone(toy, done, tmp_path):
    """To rounding: one seed is computed without the axis of seeds."""
    _, results = done
    for seed in SEEDS:
        arm = {"all": Makers(toy).arms()["all"]}
        alone = run(arm, workdir=tmp_path / str(seed), seeds=(seed,), devices=1)
        found, expected = (r["all"]["seeds"][str(seed)] for r in (alone, results))
        assert found["best_step"] == expected["best_step"]
        for split in ("test", "validation"):
            assert found[split] == pytest.approx(expected[split], rel=1e-4, abs=1e-4)


def test_the_best_parameters_test_as_they_did(toy, done):
    workdir, results = done
    for arm, make in Makers(toy).arms().items():
        found = evaluate_best(make(), workdir / arm, seeds=SEEDS, devices=1)
        assert found == [results[arm]["seeds"][str(seed)]["test"] for seed in SEEDS]


def test_the_best_parameters_can_be_applied(toy, done):
    """The accuracy of the first seed, from the model alone."""
    workdir, results = done
    params = load_best(Makers(toy).experiment(), workdir / "all", seeds=SEEDS)
    one = jax.tree.map(lambda x: x[0], params)
    test = toy.dataset().splits["test"].batch
    found = toy.model().apply(
        {"params": one}, test.inputs, test.present, test.lengths, train=False
    )["kind"]
    right = (found.argmax(-1) == test.targets["kind"])[test.labeled["kind"]]
    assert right.mean() == pytest.approx(results["all"]["seeds"]["0"]["test"]["kind/accuracy"])


def test_a_directory_without_a_checkpoint_cannot_be_tested(toy, tmp_path):
    with pytest.raises(ValueError, match="has no checkpoint; train first"):
        evaluate_best(toy.experiment(), tmp_path, seeds=(0,), devices=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_resuming_keeps_finished_arms_and_ends_the_others(toy, done):
    """The second arm lost its result, but not its checkpoints: nothing is trained anew."""
    workdir, results = done
    (workdir / "vector" / "result.json").unlink()
    (workdir / "summary.json").unlink()
    makers = Makers(toy)
    again = run(makers.arms(), workdir=workdir, seeds=SEEDS, devices=1, resume=True)
    assert makers.made == ["vector"]
    assert again["all"] == results["all"]
    assert again["vector"]["seeds"] == results["vector"]["seeds"]
    assert json.loads((workdir / "summary.json").read_text()).keys() == {"all", "vector"}


def test_a_used_directory_is_not_taken_for_a_new_run(toy, done):
    workdir, _ = done
    with pytest.raises(ValueError, match="already holds a run; pass resume=True"):
        run(Makers(toy).arms(), workdir=workdir, seeds=SEEDS, devices=1)
