"""Arms from a study, and what is refused before anything runs."""

import dataclasses

import pytest

from mmjax.config import (
    ConfigError,
    build_config,
    dump_config,
    find_config_differences,
    load_config,
)
from mmjax.study.arms import make_study_arms
from mmjax.study.search_space import Choice, LogUniform, Uniform, draw_value
from mmjax.study.study import Study, Tuning
from mmjax.study.study_plan import make_study_plan
from tests.study import small_study
from tests.study.small_study import experiment

FUSIONS = {
    "concat": {"model.fusion": "Concat()"},
    "gated": {"model.fusion": "Gated(width=6)", "epochs": "3"},
}
BALANCERS = ["equal()", "pcgrad()", "cagrad(c=0.4)"]
GRID = Study(base=experiment, axes={"fusion": FUSIONS, "balancer": BALANCERS})


def changed(**fields):
    return dataclasses.replace(GRID, **fields)


def plan(study):
    return make_study_plan("study", study, module=small_study)


def test_the_grid_has_every_combination_in_order():
    arms = make_study_arms(GRID, experiment.as_buildable())
    assert list(arms) == [
        f"fusion={f},balancer={b}"
        for f in ("concat", "gated")
        for b in ("equal", "pcgrad", "cagrad_c=0.4")
    ]
    last = arms["fusion=gated,balancer=cagrad_c=0.4"]
    assert last.labels == {"fusion": "gated", "balancer": "cagrad(c=0.4)"}
    assert last.changes == {**FUSIONS["gated"], "balancer": "cagrad(c=0.4)"}
    differing = {d.path for d in find_config_differences(experiment.as_buildable(), last.config)}
    assert {p.split(".")[0] for p in differing} == {"model", "epochs", "balancer"}
    assert build_config(last.config).model.fusion.width == 6


def test_combinations_are_left_out():
    study = changed(leave_out=lambda x: x["fusion"] == "gated" and x["balancer"] != "equal()")
    assert len(make_study_arms(study, experiment.as_buildable())) == 4


def test_single_baselines_are_the_base_with_one_part_alone():
    study = changed(single_task=True, single_modality=True)
    arms = make_study_arms(study, experiment.as_buildable())
    singles = {name: arm for name, arm in arms.items() if arm.role != "arm"}
    assert [(a.role, a.of) for a in singles.values()] == [
        ("single_task", "kind"),
        ("single_task", "size"),
        ("single_modality", "left"),
        ("single_modality", "right"),
    ]
    heads = {n: list(build_config(a.config).model.heads) for n, a in singles.items()}
    assert heads["single_task=size"] == ["size"]
    assert heads["single_modality=left"] == ["kind", "size"]
    assert list(build_config(singles["single_modality=left"].config).model.encoders) == ["left"]
    # What monitors another task's accuracy cannot do so alone.
    assert build_config(singles["single_task=kind"].config).monitor == "kind/accuracy"
    assert build_config(singles["single_task=size"].config).monitor == "loss"


def test_a_single_task_needs_no_balancer():
    base = experiment.as_buildable()
    base.balancer = None
    arm = make_study_arms(changed(single_task=True), base)["single_task=kind"]
    assert arm.config.balancer is not None


def test_the_plan_says_what_is_compared():
    found = plan(changed(seeds=(3, 5), baseline={"balancer": "pcgrad()"}))
    assert found.facts["metric"] == "kind/accuracy" and found.facts["direction"] == "max"
    assert found.facts["baseline"] == "fusion=concat,balancer=pcgrad"
    assert found.facts["seeds"] == [3, 5] and found.facts["axes"] == ["fusion", "balancer"]
    assert found.facts["tasks"] == ["kind", "size"]
    assert found.facts["directions"]["size/mae"] == "min"
    assert plan(changed(metric="size/mae")).facts["direction"] == "min"


def test_the_default_loss_is_a_primary_metric_of_which_less_is_better():
    unmonitored = dataclasses.replace(GRID, base=small_study.unmonitored)
    for study in (unmonitored, changed(metric="loss")):
        facts = plan(study).facts
        assert (facts["metric"], facts["direction"]) == ("loss", "min")
        assert "loss" not in facts["directions"]


def test_the_plan_says_what_is_trained_on():
    assert plan(GRID).facts["base"] == {
        "data": "made",
        "examples": {"train": 64, "validation": 32, "test": 32},
        "epochs": 2,
        "batch_size": 8,
    }


def test_settings_come_before_the_axes():
    study = changed(single_modality=True)
    arms = make_study_plan("study", study, ["epochs=7"], module=small_study).arms
    epochs = {name: build_config(arm.config).epochs for name, arm in arms.items()}
    assert epochs["fusion=concat,balancer=equal"] == epochs["single_modality=left"] == 7
    assert epochs["fusion=gated,balancer=equal"] == 3


def test_arms_are_stored_and_read_back():
    for arm in plan(GRID).arms.values():
        assert load_config(dump_config(arm.config, small_study), own=small_study) == arm.config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "kind/acuracy"}, "'kind/acuracy'.*kind/accuracy.*Did you mean kind/accuracy"),
        ({"baseline": {"fusion": "sum"}}, "label of fusion is 'sum'; the labels are concat"),
        ({"baseline": {"fusoin": "concat"}}, "the axis 'fusoin'; the axes are fusion"),
        ({"leave_out": lambda x: x["fusion"] == "concat"}, "baseline .* is excluded by leave_out"),
        ({"leave_out": lambda x: True}, "the study has no arm"),
        ({"axes": {"a": {"x": {"model.fusoin": "Concat()"}}}}, "arm a=x: .*no path 'model.fusoin'"),
        ({"axes": {"balancer": ["equl()"]}}, "arm balancer=equl: .*unknown name 'equl'"),
        ({"axes": {"balancer": ["equal()", "equal()"]}}, "'balancer' has no values or a duplicate"),
        ({"axes": {"balancer": []}}, "'balancer' has no values"),
        ({"axes": {"f": FUSIONS, "epochs": ["2"]}}, "two axes set epochs .the second one"),
        ({"axes": {"a": {"x!": {}, "x?": {}}}}, "two arms have the name a=x"),
        ({"axes": {"a": {"x" * 200: {}}}}, "has more than 120 characters"),
        ({"seeds": (1, 1)}, r"seeds are \[1, 1\]"),
        ({"seeds": ()}, r"seeds are \[\]"),
        ({"vmapped": ("optimizer.rate",)}, "vmapped names optimizer.rate, which no arm has"),
        (
            {"tuning": Tuning(2, {"optimizer.rate": Uniform(0, 1)})},
            "space names optimizer.rate, which no arm has",
        ),
        (
            {"tuning": Tuning(2, {"batch_size": Choice(("two",))})},
            "batch_size is 'two'; expected int",
        ),
        (
            {"tuning": Tuning(2, {"batch_size": Choice(("4",))}, seeds=(0, 9))},
            r"the seeds \[0\] are seeds of both the study and its tuning",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_runs(fields, message):
    with pytest.raises(ConfigError, match=message):
        plan(changed(**fields))


def test_a_tuning_that_cannot_be_is_refused():
    for arguments, message in (
        ((0, {"epochs": Choice(("1",))}), "trials is 0"),
        ((1, {}), "at least one path"),
        ((1, {"epochs": Choice(("1",))}, "grid"), "sampler is 'grid'"),
    ):
        with pytest.raises(ValueError, match=message):
            Tuning(*arguments)


def test_draws_have_their_distributions():
    """Quantiles of a uniform and of a log-uniform number, and shares of a choice."""
    import numpy as np

    rng = np.random.default_rng(0)
    numbers = [float(draw_value(Uniform(2.0, 4.0), rng)) for _ in range(4000)]
    assert np.quantile(numbers, [0.25, 0.75]) == pytest.approx([2.5, 3.5], abs=0.05)
    logs = np.log10([float(draw_value(LogUniform(1e-4, 1e-2), rng)) for _ in range(4000)])
    assert np.quantile(logs, [0.25, 0.75]) == pytest.approx([-3.5, -2.5], abs=0.06)
    texts = [draw_value(Choice(("a", "b", "c")), rng) for _ in range(3000)]
    assert {t: texts.count(t) / 3000 for t in "abc"} == pytest.approx(
        dict.fromkeys("abc", 1 / 3), abs=0.04
    )
