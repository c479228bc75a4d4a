"""`fit`: repeatable, resumable, the same streamed; it stops early and stops on NaN."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from datetime import timedelta

import jax
import numpy as np
import optax
import pytest

from mmjax.cli.resume_hints import is_compiling
from mmjax.data.dataset import Arrays, Dataset
from mmjax.data.sampling.batch_order import make_train_indices
from mmjax.files.disk_space import DiskFullError
from mmjax.heads import Regression
from mmjax.interrupts import Interrupted, raise_on_signals
from mmjax.train import fit_result, timing
from mmjax.train.checkpoint import Checkpoints, hash_arrays
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.divergence import NonFiniteError
from mmjax.train.loop import fit
from mmjax.train.schedule import Schedule, choose_dispatch_steps
from mmjax.train.timing import TrainingClock

SEED_LOG = "metrics-seed0.jsonl"


def final(fitted):
    return hash_arrays(jax.device_get(fitted.state))


class Counted:
    """A source that is not `Arrays`, as a data set larger than memory would be."""

    def __init__(self, source):
        self.source, self.calls = source, 0

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        self.calls += 1
        return self.source.take(indices)


@pytest.mark.slow
def test_streamed_again_and_resumed_are_one_run(toy, tmp_path):
    """The same bits from data on the device, from a stream, and after an interruption."""
    whole = fit(toy.experiment(), tmp_path / "whole")
    data = toy.dataset()
    counted = {name: Counted(source) for name, source in data.splits.items()}
    streamed = fit(
        toy.experiment(data=Dataset(data.name, data.modalities, data.tasks, counted), stream=True),
        tmp_path / "streamed",
    )
    assert counted["train"].calls == 3 * 2 + 2  # two dispatches per epoch, and the shapes twice
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "24")
    resumed = fit(toy.experiment(), tmp_path / "resumed")

    assert final(whole) == final(streamed) == final(resumed)
    assert whole.test == streamed.test == resumed.test
    logs = {d: (tmp_path / d / SEED_LOG).read_bytes() for d in ("whole", "streamed", "resumed")}
    assert logs["whole"] == logs["streamed"] == logs["resumed"]
    steps = [json.loads(line)["step"] for line in logs["whole"].splitlines()]
    assert steps == [4, 8, 8, 12, 16, 16, 20, 24, 24]


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(toy, tmp_path, caplog):
    whole = fit(toy.experiment(), tmp_path)
    newest = tmp_path / "checkpoints" / "24"
    largest = max(newest.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(bytes(content))
    again = fit(toy.experiment(), tmp_path)
    assert "checkpoint of step 24 is damaged" in caplog.text
    assert (tmp_path / "damaged-24").is_dir()
    assert final(again) == final(whole)


def test_training_learns_and_keeps_the_best(toy, tmp_path):
    experiment = toy.experiment(epochs=12, monitor="kind/accuracy", optimizer=optax.adam(0.05))
    fitted = fit(experiment, tmp_path, seeds=(0, 1))
    for i in (0, 1):
        lines = (tmp_path / f"metrics-seed{i}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        scores = [
            (r["validation/kind/accuracy"], -r["step"])
            for r in records
            if "validation/kind/accuracy" in r
        ]
        best, step = max(scores)
        assert len(scores) == 12
        assert fitted.validation[i]["kind/accuracy"] == pytest.approx(best)
        assert int(fitted.state.best_step[i]) == -step
        assert fitted.test[i]["kind/accuracy"] > 0.6  # chance is 0.25


def test_early_stopping_ends_a_seed_and_then_the_run(toy, tmp_path):
    """A learning rate of zero never improves: one good validation and two in vain."""
    fitted = fit(toy.experiment(epochs=9, patience=2, optimizer=optax.sgd(0.0)), tmp_path)
    assert int(fitted.state.train.step[0]) == 3 * 8
    assert int(fitted.state.best_step[0]) == 8
    resumed = fit(toy.experiment(epochs=9, patience=2, optimizer=optax.sgd(0.0)), tmp_path)
    assert final(resumed) == final(fitted)


def poisoned(step):
    """An optimizer that makes the parameters infinite at a step."""

    def update(grads, state, params=None):
        bad = jax.tree.map(lambda g: jax.numpy.where(state == step, np.inf, -1e-3 * g), grads)
        return bad, state + 1

    return optax.GradientTransformation(lambda params: jax.numpy.zeros((), int), update)


def test_bad_parameters_stop_the_run_before_they_are_saved(toy, tmp_path):
    """They go bad in the last step before the second checkpoint, after a finite loss."""
    with pytest.raises(NonFiniteError) as error:
        fit(toy.experiment(optimizer=poisoned(15)), tmp_path)
    message = str(error.value)
    assert "parameter norm is inf at step 15 (seed 0)" in message
    assert str(tmp_path / "checkpoints" / "8") in message
    assert Checkpoints(tmp_path / "checkpoints").steps() == [8]
    assert "validation" in (tmp_path / SEED_LOG).read_text()


def test_a_nan_loss_is_said_with_its_task(toy, tmp_path):
    heads = dict(toy.model().heads) | {"size": Regression(loss=lambda p, y: (p - y) / (0 * y))}
    with pytest.raises(NonFiniteError, match=r"loss 'size' is .* at step 0 \(seed 3\)"):
        fit(toy.experiment(model=toy.model().clone(heads=heads)), tmp_path, seeds=(3,))


def test_a_full_disk_is_said_with_the_last_good_checkpoint(toy, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage.free, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    with pytest.raises(DiskFullError) as error:
        fit(toy.experiment(), tmp_path)
    assert "no space for the checkpoint of step 16" in str(error.value)
    assert str(tmp_path / "checkpoints" / "8") in str(error.value)
    assert "--resume" in str(error.value)


@pytest.mark.parametrize(
    ("epoch_steps", "most", "expected"),
    [(72, 64, 36), (64, 64, 64), (10, 64, 10), (67, 64, 64), (7, 4, 4), (1, 1, 1)],
)
def test_dispatches_divide_an_epoch_where_they_can(epoch_steps, most, expected):
    assert choose_dispatch_steps(epoch_steps, most) == expected


def test_a_plan_covers_every_step_once_and_resumes_at_any_validation(toy):
    experiment = toy.experiment(epochs=4, steps_per_dispatch=3, eval_every=2)
    plan = Schedule(experiment, (0,), 128)
    steps = [s for start, stop in plan.ranges for s in range(start, stop)]
    assert steps == list(range(32))
    due = [stop for _, stop in plan.ranges if plan.validates_at(stop)]
    assert due == [16, 32]
    rest = Schedule(experiment, (0,), 128, first=16)
    assert [tuple(r) for r in plan.ranges if r[0] >= 16] == rest.ranges
    last, again = (p.dispatches[len(p.dispatches) - 1] for p in (plan, rest))
    np.testing.assert_array_equal(last, again)


def changed(batch, part, name, value):
    """The batch with the first row of one array changed."""
    array = np.array(getattr(batch, part)[name])
    array[0] = value
    return batch._replace(**{part: getattr(batch, part) | {name: array}})


def spoil(data, part, name, value):
    batch = data.splits["train"].batch
    batch = batch._replace(
        present={m: np.ones_like(x) for m, x in batch.present.items()},
        labeled={t: np.ones_like(x) for t, x in batch.labeled.items()},
    )
    splits = dict(data.splits) | {"train": Arrays(changed(batch, part, name, value))}
    return Dataset(data.name, data.modalities, data.tasks, splits)


def test_a_pause_of_the_machine_does_not_count_in_a_steps_time(monkeypatch):
    """Dispatches of 0.1 s a step and one of 50 s; the first, which compiles, is left out."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    clock = TrainingClock()

    def dispatch(steps, seconds):
        clock.start_dispatch()
        now[0] += seconds
        clock.end_dispatch(steps)
        now[0] += 7.0  # a validation

    assert np.isnan(clock.step_seconds())
    dispatch(4, 30.0)
    assert clock.first == 30.0 and np.isnan(clock.step_seconds())
    for steps, seconds in ((4, 0.4), (2, 0.2), (4, 50.0), (4, 0.4)):
        dispatch(steps, seconds)
    assert clock.step_seconds() == pytest.approx(0.1)
    assert clock.steps_per_second() == pytest.approx(14 / (51.0 + 4 * 7.0))


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("targets", "kind", 7, ["kind", "7"]),
        ("targets", "size", np.nan, ["size"]),
        ("inputs", "vector", np.nan, ["vector"]),
        ("lengths", "sequence", 0, ["sequence", "0"]),
        ("lengths", "sequence", 8, ["sequence", "8"]),
    ],
)
def test_bad_data_is_refused_at_the_door(toy, part, name, value, words):
    experiment = toy.experiment(data=spoil(toy.dataset(), part, name, value))
    with pytest.raises(ValueError) as error:
        check_experiment(experiment, 1)
    for word in ["toy", "train", *words]:
        assert word in str(error.value)


def test_parts_that_do_not_fit_are_refused(toy):
    data = toy.dataset()
    without = {
        "encoder 'vector'": Dataset(
            "toy", {"sequence": data.modalities["sequence"]}, data.tasks, data.splits
        ),
        "head 'size'": Dataset("toy", data.modalities, {"kind": data.tasks["kind"]}, data.splits),
        "no split 'test'": Dataset(
            "toy",
            data.modalities,
            data.tasks,
            {k: v for k, v in data.splits.items() if k != "test"},
        ),
        "'test' of toy is empty": Dataset(
            "toy",
            data.modalities,
            data.tasks,
            dict(data.splits) | {"test": Arrays(toy.batch(0, 0))},
        ),
    }
    for words, dataset in without.items():
        with pytest.raises(ValueError, match=words):
            check_experiment(toy.experiment(data=dataset), 1)
    with pytest.raises(ValueError, match=r"batch_size=16 is not divisible by the 3 devices"):
        check_experiment(toy.experiment(), 3)
    with pytest.raises(ValueError, match="batch_size=999 is more than the 128"):
        check_experiment(toy.experiment(batch_size=999), 1)
    with pytest.raises(
        ValueError, match=r"monitor is 'kind/acuracy'; it must be one of .*accuracy"
    ):
        check_experiment(toy.experiment(monitor="kind/acuracy"), 1)
    with pytest.raises(ValueError, match="epochs is 0; it must be at least 1"):
        toy.experiment(epochs=0)


@pytest.mark.slow
def test_a_validation_split_that_cannot_choose_is_refused(toy, tmp_path):
    """Without a label for one task the mean loss is NaN, and no parameters would ever be best."""
    data = toy.dataset()
    batch = data.splits["validation"].batch
    batch.labeled["size"][:] = False
    with pytest.raises(ValueError, match="has a label of task 'size'"):
        fit(toy.experiment(data=data), tmp_path / "loss")
    fitted = fit(toy.experiment(data=data, monitor="kind/accuracy"), tmp_path / "accuracy")
    assert int(fitted.state.best_step[0]) > 0


def stop_after(dispatches, signum=signal.SIGTERM):
    """What shows a run's progress, and sends this process a signal after so many dispatches."""

    @contextlib.contextmanager
    def show(*_):
        steps = set()

        def report(step, text, *, last=False):
            if "compiling" not in text:
                steps.add(step)
            if len(steps) == dispatches:
                os.kill(os.getpid(), signum)

        yield report

    return show


@pytest.mark.slow
@pytest.mark.parametrize(("dispatches", "signum"), [(3, signal.SIGTERM), (4, signal.SIGINT)])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_bits(toy, tmp_path, dispatches, signum):
    """Inside an epoch and at its end, with two seeds of which one stops early."""
    experiment = toy.experiment(patience=1, monitor="kind/accuracy")
    whole = fit(experiment, tmp_path / "whole", seeds=(0, 1))
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        show = stop_after(dispatches, signum)
        fit(experiment, tmp_path / "again", seeds=(0, 1), show=show)
    step = 4 * dispatches
    assert stopped.value.signum == signum
    assert f"stopped after step {step}; its checkpoint is saved" in str(stopped.value)
    assert Checkpoints(tmp_path / "again" / "checkpoints").steps()[-1] == step
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    again = fit(experiment, tmp_path / "again", seeds=(0, 1))
    assert final(again) == final(whole)
    assert (again.validation, again.test) == (whole.validation, whole.test)
    assert int(whole.state.train.step[0]) > step  # there was something left
    for seed in (0, 1):
        logs = [tmp_path / d / f"metrics-seed{seed}.jsonl" for d in ("whole", "again")]
        assert logs[0].read_bytes() == logs[1].read_bytes()


@pytest.mark.slow
def test_a_stream_that_was_stopped_inside_an_epoch_goes_on_to_the_same_bits(toy, tmp_path):
    data = toy.dataset()
    sources = {name: Counted(source) for name, source in data.splits.items()}
    streamed = Dataset(data.name, data.modalities, data.tasks, sources)
    whole = fit(toy.experiment(), tmp_path / "whole")
    experiment = toy.experiment(data=streamed, stream=True)
    with pytest.raises(Interrupted):
        fit(experiment, tmp_path / "again", show=stop_after(3))
    again = fit(experiment, tmp_path / "again")
    assert final(again) == final(whole)
    assert (tmp_path / "again" / SEED_LOG).read_bytes() == (
        tmp_path / "whole" / SEED_LOG
    ).read_bytes()


class Stuck(Counted):
    """A source that does not read certain examples together until it may."""

    def __init__(self, source, indices):
        super().__init__(source)
        self.indices, self.go_on = np.sort(indices, axis=None), threading.Event()

    def take(self, indices):
        if np.array_equal(np.sort(indices), self.indices):
            self.go_on.wait(60)
        return super().take(indices)


@pytest.mark.slow
def test_a_signal_while_data_are_waited_for_saves_a_checkpoint_at_once(toy, tmp_path):
    data = toy.dataset()
    wanted = make_train_indices((0,), len(data.splits["train"]), 16, 12, 16)
    source = Stuck(data.splits["train"], wanted)
    sources = {name: Counted(split) for name, split in data.splits.items()} | {"train": source}
    streamed = Dataset(data.name, data.modalities, data.tasks, sources)
    experiment = toy.experiment(data=streamed, stream=True)
    ready = threading.Event()

    @contextlib.contextmanager
    def show(*_):
        yield lambda step, text, last=False: step == 12 and ready.set()

    def interrupt():
        ready.wait(60)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted, match="stopped after step 12; its checkpoint is saved"):
        fit(experiment, tmp_path / "again", show=show)
    assert not source.go_on.is_set()
    source.go_on.set()
    sender.join()
    assert Checkpoints(tmp_path / "again" / "checkpoints").steps() == [8, 12]
    again = fit(experiment, tmp_path / "again")
    assert final(again) == final(fit(toy.experiment(), tmp_path / "whole"))


@pytest.mark.slow
def test_a_signal_after_the_last_step_is_not_lost(toy, tmp_path, monkeypatch):
    """While the best parameters are evaluated, when all is saved, and just before."""
    collect, close = fit_result.collect_split_statistics, Checkpoints.close

    def interrupted(programs, params, split):
        if split == "test":
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(programs, params, split)

    def closed(self):
        os.kill(os.getpid(), signal.SIGTERM)
        close(self)

    for owner, name, change in (
        (fit_result, "collect_split_statistics", interrupted),
        (Checkpoints, "close", closed),
    ):
        with monkeypatch.context() as patch, raise_on_signals(), pytest.raises(Interrupted):
            patch.setattr(owner, name, change)
            fit(toy.experiment(), tmp_path / name)
        assert Checkpoints(tmp_path / name / "checkpoints").steps()[-1] == 24
        assert fit(toy.experiment(), tmp_path / name).test


@pytest.mark.slow
def test_a_signal_while_the_last_checkpoint_is_saved_ends_the_run_after_it(
    toy, tmp_path, monkeypatch
):
    save = Checkpoints.save

    def interrupted(self, step, state):
        save(self, step, state)
        if step == 24:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, raise_on_signals():
        patch.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(Interrupted, match="stopped after step 24; its checkpoint is saved"):
            fit(toy.experiment(), tmp_path)
    assert fit(toy.experiment(), tmp_path).test


def test_ignored_signals_stay_ignored_when_another_ends_the_command():
    """As SIGHUP is under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(Interrupted), raise_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        pytest.param(None, [8, 16, 24], marks=pytest.mark.slow),
        (4, [4, 8, 12, 16, 20, 24]),
        (timedelta(microseconds=1), [4, 8, 12, 16, 20, 24]),
    ],
)
def test_checkpoints_are_saved_every_so_often(toy, tmp_path, monkeypatch, every, expected):
    """At the ends of dispatches of 4 steps; a checkpoint at a validation is one."""
    saved = []
    save = Checkpoints.save

    def noting(self, step, tree):
        saved.append(step)
        save(self, step, tree)

    monkeypatch.setattr(Checkpoints, "save", noting)
    fit(toy.experiment(), tmp_path, checkpoint_every=every)
    assert saved == expected
    assert Checkpoints(tmp_path / "checkpoints").steps() == saved[-2:]


def test_checkpoints_that_are_never_due_are_refused(toy, tmp_path):
    for never in (0, timedelta(0)):
        with pytest.raises(ValueError, match=r"checkpoint_every is 0.*; it must be more than 0"):
            fit(toy.experiment(), tmp_path, checkpoint_every=never)


def test_a_plan_that_begins_inside_a_dispatch_leaves_no_step_out(toy):
    plan = Schedule(toy.experiment(), (0,), 128, first=6)
    assert plan.ranges[:2] == [(6, 8), (8, 12)]


def test_the_bar_says_that_it_compiles_and_that_a_run_stopped_early(toy, tmp_path):
    reports = []

    @contextlib.contextmanager
    def show(title, total, start, examples_per_step):
        yield lambda step, text, last=False: reports.append((step, text, last))

    experiment = toy.experiment(epochs=9, patience=2, optimizer=optax.sgd(0.0))
    fit(experiment, tmp_path, show=show)
    assert reports[0] == (0, "compiling ...", False)
    assert reports[1][0] == 4 and reports[1][1].startswith("kind ")
    assert reports[-1] == (24, "stopped early at step 24 (best 8)", True)
    reports.clear()
    fit(experiment, tmp_path, show=show)
    assert reports[-1] == (24, "stopped early at step 24 (best 8)", True)


def test_a_signal_while_it_compiles_ends_the_run_at_once(toy, tmp_path, monkeypatch):
    """There is nothing to save. The compiler's thread continues until it is done."""
    compiling, go_on = threading.Event(), threading.Event()
    lower = jax.stages.Lowered.compile

    def slow(self, *args, **options):
        compiling.set()
        go_on.wait(60)
        return lower(self, *args, **options)

    def interrupt():
        compiling.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(jax.stages.Lowered, "compile", slow)
    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted), raise_on_signals():
        fit(toy.experiment(), tmp_path)
    assert not go_on.is_set() and is_compiling()
    go_on.set()
    sender.join()
    for thread in threading.enumerate():
        if thread.name == "mmjax-compile":
            thread.join()
