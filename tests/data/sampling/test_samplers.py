"""Shares of groups in batches: exact, covering, a function of (seed, step); and what is refused."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data import ClassBalanced, Stratified, TaskMixture
from mmjax.data.dataset import Dataset, Task
from mmjax.data.sampling.batch_order import TrainIndexPlan, make_train_indices
from mmjax.data.sampling.grouped_order import SampleGroups
from mmjax.data.sampling.samplers import form_training_groups
from mmjax.data.sampling.task_labels import TaskLabels
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.splits import Splits

PET = {"pet": Task("classification", ("cat", "dog", "eel", "fox"))}
RNG = np.random.default_rng(0)
KINDS = RNG.choice(4, 203, p=[0.7, 0.2, 0.07, 0.03])


def draw_epoch(groups, examples, batch_size, seed=0, epoch=0):
    steps = examples // batch_size
    start, stop = epoch * steps, (epoch + 1) * steps
    return make_train_indices([seed], examples, batch_size, start, stop, groups)[0]


def count_groups(groups, batches):
    """Counts each group's examples in every batch [k b]."""
    return (groups.of_row[batches][..., None] == np.arange(len(groups.shares))).sum(axis=1)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    ratios=st.lists(st.integers(1, 30), min_size=12, max_size=12),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_every_batch_has_its_share_of_every_group(sizes, ratios, batch_size, seed):
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    shares = np.array(ratios[: len(sizes)]) / sum(ratios[: len(sizes)])
    groups, examples = SampleGroups(of_row, shares), len(of_row)
    batches = draw_epoch(groups, examples, min(batch_size, examples), seed)
    counts = count_groups(groups, batches)
    exact = shares * batches.shape[1]
    assert (counts.sum(axis=1) == batches.shape[1]).all()
    assert (np.abs(counts - exact) < 1 - 1e-9).all()
    assert (np.abs(counts.sum(axis=0) - len(batches) * exact) < 1).all()
    # No example comes again before all others of its group have come.
    visits = np.bincount(batches.ravel(), minlength=examples)
    for group in range(len(sizes)):
        assert np.ptp(visits[of_row == group]) <= 1


@pytest.mark.parametrize("batch_size", [7, 29, 203])
def test_stratified_epochs_visit_every_example_at_most_once(batch_size):
    labeled = RNG.random(203) < 0.8
    groups = Stratified("pet").form_groups({"pet": TaskLabels(KINDS, labeled)}, PET)
    batches = draw_epoch(groups, 203, batch_size)
    assert np.bincount(batches.ravel()).max() == 1
    # The examples without a label are a class of their own.
    strata = np.where(labeled, KINDS, 4)
    for stratum in range(5):
        share = (strata == stratum).mean() * batch_size
        assert (np.abs((strata[batches] == stratum).sum(axis=1) - share) < 1).all()


def test_balanced_batches_have_as_many_of_each_class():
    labeled = KINDS != 1
    groups = ClassBalanced("pet").form_groups({"pet": TaskLabels(KINDS, labeled)}, PET)
    batches = draw_epoch(groups, 203, 10)
    counts = (KINDS[batches][..., None] == np.arange(4)).sum(axis=1)
    assert (counts[:, 1] == 0).all()
    assert (counts[:, [0, 2, 3]].min(), counts.max()) == (3, 4)
    assert np.ptp(counts.sum(axis=0)[[0, 2, 3]]) <= 1
    seen = np.unique([draw_epoch(groups, 203, 10, epoch=e) for e in range(10)])
    np.testing.assert_array_equal(seen, np.flatnonzero(labeled))


def test_tasks_are_mixed_by_ratio_or_temperature():
    of_task = np.repeat([0, 1, 2], [160, 40, 3])
    labels = {t: TaskLabels(np.zeros(203), of_task == i) for i, t in enumerate("abc")}
    for sampler, shares in [
        (TaskMixture(), np.array([160, 40, 3]) / 203),
        (TaskMixture(temperature=2.0), np.sqrt([160, 40, 3]) / np.sqrt([160, 40, 3]).sum()),
        (TaskMixture(temperature=float("inf")), np.ones(3) / 3),
        (TaskMixture({"a": 1.0, "b": 2.0, "c": 1.0}), np.array([0.25, 0.5, 0.25])),
    ]:
        groups = sampler.form_groups(labels, {})
        np.testing.assert_allclose(groups.shares, shares, rtol=1e-12)
        batches = draw_epoch(groups, 203, 8)
        counts = (of_task[batches][..., None] == np.arange(3)).sum(axis=1)
        assert (np.abs(counts - 8 * shares) < 1).all()


def test_a_batch_is_known_from_its_seed_and_step_alone():
    groups = ClassBalanced("pet").form_groups({"pet": TaskLabels(KINDS, KINDS >= 0)}, PET)
    whole = draw_epoch(groups, 203, 10, seed=5, epoch=3)
    ranges = ((60, 67), (67, 80), (80, 90))
    plan = TrainIndexPlan((4, 5), 203, 10, ranges, groups)
    # As in a resumed run, or in another process.
    again = pickle.loads(pickle.dumps(plan))
    np.testing.assert_array_equal(again[1][1], whole[7:])
    np.testing.assert_array_equal(plan[0][1], whole[:7])
    assert not np.array_equal(plan[0][0], plan[0][1])
    assert not np.array_equal(plan[2][1], whole[:10])


class OnDisk:
    """A source that is not in memory."""

    def __init__(self, source):
        self.source, self.calls = source, 0

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        self.calls += 1
        return self.source.take(indices)


def test_sources_on_disk_are_read_once_and_give_the_same_groups(toy):
    data, source = toy.dataset(), OnDisk(toy.dataset().splits["train"])
    lazy = Dataset(data.name, data.modalities, data.tasks, {**data.splits, "train": source})
    a, b, _ = (
        form_training_groups(Stratified("kind"), d, ["vector"], ["size"])
        for d in (data, lazy, lazy)
    )
    np.testing.assert_array_equal(a.of_row, b.of_row)
    assert source.calls == 1
    # Examples without any modality of the model have no label.
    train = data.splits["train"].batch
    used = train.labeled["kind"] & train.present["vector"]
    assert (a.of_row == 0).sum() == (~used).sum()


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Stratified("size"), r"Stratified\('size'\): the task is a regression"),
        (ClassBalanced("pet"), r"toy has no task 'pet', only \['kind', 'size'\]"),
        (TaskMixture(), r"training row \d+ has labels of 'kind' and 'size'"),
        (TaskMixture({"pet": 1.0}), r"has \['pet'\], none of the model's tasks"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(toy, sampler, message):
    with pytest.raises(ValueError, match=message):
        check_experiment(toy.experiment(sampler=sampler), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaskMixture(temperature=0.5), "temperature is 0.5; it must be 1 or more"),
        (lambda: TaskMixture({"a": 1.0}, 2.0), "only one of them"),
        (lambda: TaskMixture({"a": 0.0}), "give at least one, all positive"),
        (
            lambda: ClassBalanced("pet").form_groups(
                {"pet": TaskLabels(KINDS, np.zeros(203, bool))}, PET
            ),
            "no training example has a label of 'pet'",
        ),
        (
            lambda: TaskMixture().form_groups(
                {"a": TaskLabels(KINDS, KINDS >= 0), "b": TaskLabels(KINDS, KINDS < 0)}, PET
            ),
            "no training example has a label of 'b'",
        ),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_experiment_without_a_sampler_has_no_groups(toy):
    experiment = toy.experiment()
    assert Splits(experiment, ()).groups() is None
    stratified = dataclasses.replace(experiment, sampler=Stratified("kind"))
    assert len(Splits(stratified, ()).groups().of_row) == 128
