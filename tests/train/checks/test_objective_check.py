"""Objectives that would read a task's targets or predictions as what they are not."""

import pytest

from mmjax import Model
from mmjax.auxiliary import ConfidenceRanking, DirichletKL
from mmjax.data.dataset import Dataset, Task
from mmjax.encoders import Features
from mmjax.fusion import Late
from mmjax.heads import Classification, Evidential, MultiLabel, Ordinal, Regression
from mmjax.modalities.imbalance import (
    ClusterImpurity,
    ConfidenceOrder,
    GradientDirection,
    ModalityValuation,
    PrototypeRebalance,
    ResidualBoosting,
    UnimodalLoss,
)
from mmjax.train.checks.objective_check import check_objectives

CLASSES = ("x", "y", "z")
DATA = Dataset(
    "toy",
    {},
    {
        "kind": Task("classification", CLASSES),
        "level": Task("ordinal", CLASSES),
        "mix": Task("classification", CLASSES, shape=(3,)),
        "tags": Task("multilabel", CLASSES),
        "size": Task("regression"),
    },
    {},
)
HEADS = {
    "kind": Classification(3),
    "level": Ordinal(3),
    "mix": Classification(3),
    "tags": MultiLabel(3),
    "size": Regression(),
}


def check(objective, **heads):
    model = Model({"a": Features()}, Late(4), HEADS | heads, auxiliary={"extra": objective})
    check_objectives(model, DATA)


@pytest.mark.parametrize("task", ["level", "tags", "size"])
@pytest.mark.parametrize(
    "make",
    [
        ConfidenceOrder,
        ModalityValuation,
        lambda task: ConfidenceRanking(("kind", task)),
        lambda task: ResidualBoosting("a", task),
        lambda task: GradientDirection(task, Classification(3)),
        lambda task: UnimodalLoss("a", task, Classification(3)),
    ],
)
def test_objectives_of_exclusive_classes_refuse_other_tasks(make, task):
    check(make("kind"))
    with pytest.raises(ValueError, match=rf"model\.auxiliary\.extra \(\w+\).*{task}.* kind "):
        check(make(task))


@pytest.mark.parametrize(
    "make",
    [lambda task, n: PrototypeRebalance(task, n), lambda task, n: ClusterImpurity("a", task, n)],
)
def test_objectives_with_a_cluster_per_class_need_their_number(make):
    for task in ("kind", "level"):
        check(make(task, 3))
        with pytest.raises(ValueError, match=f"classes=2, but the task '{task}' has 3; set clas"):
            check(make(task, 2))
    with pytest.raises(ValueError, match=r"one class per example, but the task 'mix' .* \(3,\)"):
        check(make("mix", 3))
    for task in ("tags", "size"):
        with pytest.raises(ValueError, match="kind 'classification' or 'ordinal', or leave"):
            check(make(task, 3))


def test_evidence_is_that_of_evidential_heads():
    check(DirichletKL(("kind",)), kind=Evidential(3))
    with pytest.raises(ValueError, match="'kind', whose head is Classification; it needs Evid"):
        check(DirichletKL(("kind",)))


def test_a_unimodal_head_fits_the_task():
    check(UnimodalLoss("a", "size", Regression()))
    with pytest.raises(ValueError, match="Task 'kind' has 3 classes but its head has 4"):
        check(UnimodalLoss("a", "kind", Classification(4)))


def test_unknown_tasks_are_left_to_the_objective():
    check(ConfidenceOrder("shape"))
