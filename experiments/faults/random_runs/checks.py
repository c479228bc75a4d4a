"""Checks of a random run: of its metrics, and of what must not change the result."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from random_runs.case import Case, RefusedError
from random_runs.draw_model import RANDOM_PARTS
from sklearn import metrics as sklearn_metrics

import mmjax
from mmjax.export import export_run, prepare_arrays, read_export_spec
from mmjax.export.jax_artifact import run_jax
from mmjax.export.onnx_artifact import run_onnx
from mmjax.runs.best_params import read_best_variables
from mmjax.train.best_variables import evaluate_best
from mmjax.train.reporting import metric_writers

# A few steps of SGD at rate 0.01: gradients differ by some 100 roundings of float32 (6e-8) of terms
# of size 1 to 10, and each step multiplies an earlier difference by little more than 1.
ROUND_OFF = 2e-5
SGD = ("optimizer=optax.sgd(0.01)", "epochs=1", "eval_every=1")


def find_arm(directory: Path) -> Path:
    """Returns the directory of the arm "all", which is that of an experiment without others."""
    return directory / "all"


def read_results(directory: Path) -> dict[str, Any]:
    """Returns the logs and the results per seed, which contain no times."""
    arm = find_arm(directory)
    result = json.loads((arm / "result.json").read_text(encoding="utf-8"))
    logs = {path.name: path.read_bytes() for path in sorted(arm.glob("*.jsonl"))}
    return {"seeds": result["seeds"], **logs}


def check_equal(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Requires the same bits."""
    for name, value in expected.items():
        if repr(got.get(name)) != repr(value):  # NaN is equal to itself as text
            raise AssertionError(f"{name} differs:\n{got.get(name)!r}\n{value!r}")


def choose_settings(case: Case) -> tuple[str, ...]:
    """Returns settings under which round-off stays small: plain SGD, in float32."""
    return (*SGD, *["compute_dtype='float32'"] * ("bfloat16" in case.draw.source))


def check_close_runs(first: Path, second: Path, seeds: list[int], change: str) -> None:
    """Requires the same parameters up to round-off, relative to the size of each array."""
    trees = []
    for directory in (first, second):
        trees.append(read_best_variables(find_arm(directory), seeds)["params"])
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(trees[0]), jax.tree.leaves(trees[1]), strict=True
    ):
        difference = float(np.abs(a - b).max(initial=0))
        if not difference <= ROUND_OFF * max(1, float(np.abs(a).max(initial=0))):
            name = jax.tree_util.keystr(path)
            raise AssertionError(f"{name} differs by {difference:.2e}: {change}")


def check_evaluation(case: Case, run: Path) -> None:
    """Requires that evaluating again gives the stored metrics, and so do the raw test examples."""
    experiment, arm = mmjax.load(run).experiment, find_arm(run)
    tests = evaluate_best(experiment, arm, seeds=case.seeds, devices=case.devices)
    seeds = read_results(run)["seeds"]
    check_equal(
        dict(enumerate(tests)), {i: seeds[str(s)]["test"] for i, s in enumerate(case.seeds)}
    )
    for seed in case.seeds:
        check_scores(case, mmjax.load(run, seed=seed), seeds[str(seed)]["test"])


def check_scores(case: Case, trained: Any, stored: dict[str, float]) -> None:
    """Compares the stored test metrics with those of predictions from the raw test examples.

    Examples with none of the model's modalities do not count.
    """
    if case.draw.examples is None:
        evaluated = trained.evaluate(trained.experiment.data)
        for name, value in evaluated.items():
            compare_number(f"evaluate {name}", value, stored[name], 1e-4)
        return
    predictions = trained.predict(case.draw.examples)
    modalities = tuple(trained.model.encoders)
    columns = [cells for name, cells in case.draw.examples.items() if name.startswith(modalities)]
    seen = np.array([any(cell is not None for cell in row) for row in zip(*columns, strict=True)])
    for task, (kind, values, labeled) in case.draw.tasks.items():
        labeled = labeled & seen
        predicted, truth = predictions[task], values[labeled]
        for name, value in score_task(kind, predicted, truth, labeled).items():
            if f"{task}/{name}" in stored:
                compare_number(f"{task}/{name}", stored[f"{task}/{name}"], value, 1e-4)


def score_task(
    kind: str, predicted: Any, truth: np.ndarray, labeled: np.ndarray
) -> dict[str, float]:
    """Scores the predictions of the labeled examples by scikit-learn."""
    if kind == "regression":
        values = np.asarray(predicted.values, np.float64)[labeled].reshape(truth.shape)
        return {
            "mae": sklearn_metrics.mean_absolute_error(truth, values),
            "rmse": float(np.sqrt(sklearn_metrics.mean_squared_error(truth, values))),
            "r2": sklearn_metrics.r2_score(truth, values),
        }
    if kind == "multilabel":
        chosen = np.asarray(predicted.chosen)[labeled].astype(int)
        return {
            f"{name}_f1": sklearn_metrics.f1_score(truth, chosen, average=name, zero_division=0)
            for name in ("micro", "macro")
        }
    indices, probabilities = predicted.indices[labeled], predicted.probabilities[labeled]
    # The classes of a table are in the order of their names, which is that of the numbers.
    scores = {"accuracy": float((indices == truth).mean())}
    if kind == "ordinal":
        scores["mae"] = float(np.abs(indices - truth).mean())
    elif len(set(truth)) == probabilities.shape[1]:
        scores["auroc"] = sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr")
    return scores


def compare_number(name: str, got: float, expected: float, tolerance: float) -> None:
    """Requires two numbers that agree up to a share of their size, or two NaN."""
    if not np.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        raise AssertionError(f"{name} is {got}, expected {expected}")


@contextlib.contextmanager
def stop_after_writes(count: int) -> Iterator[None]:
    """Sends this process SIGTERM when so many lines of the log have been written."""
    opened, lines = metric_writers.open_jsonl_writer, 0

    def open_writer(*arguments: Any, **options: Any) -> Callable:
        write = opened(*arguments, **options)

        def write_and_stop(*values: Any) -> None:
            nonlocal lines
            write(*values)
            lines += 1
            if lines == count:
                os.kill(os.getpid(), signal.SIGTERM)

        return write_and_stop

    with mock.patch.object(metric_writers, "open_jsonl_writer", open_writer):
        yield


def check_resumed(case: Case, run: Path) -> None:
    """Requires the same bits of a run that a signal stopped after a random number of log lines."""
    lines = sum(p.read_bytes().count(b"\n") for p in find_arm(run).glob("*.jsonl"))
    with stop_after_writes(case.rng.randrange(1, lines + 1)):
        outcome = case.try_run("stopped")
    if outcome.traceback or outcome.code not in (0, 128 + signal.SIGTERM):
        raise AssertionError(f"the stopped run ended with {outcome}")
    case.run("stopped", "--resume")
    check_equal(read_results(case.folder / "stopped"), read_results(run))


def check_arms(case: Case, run: Path) -> None:
    """Requires the same bits beside arms of single modalities, and those arms' metrics again."""
    arms = case.run("arms", file=case.arms_file)
    check_equal(read_results(arms), read_results(run))
    arm, seed = case.rng.choice(list(case.draw.modalities)), case.rng.choice(case.seeds)
    result = json.loads((arms / arm / "result.json").read_text(encoding="utf-8"))
    check_scores(case, mmjax.load(arms, arm, seed), result["seeds"][str(seed)]["test"])


def check_from_run(case: Case, run: Path) -> None:
    """Requires the same bits of a run of the stored configuration."""
    check_equal(read_results(case.run("again", "--from-run", str(run))), read_results(run))


def check_seeds(case: Case, run: Path) -> None:
    """Requires that a seed alone learns what it learned beside another one."""
    same = choose_settings(case)
    both = case.run("both", seeds=[0, 1], settings=same)
    check_close_runs(both, case.run("alone", seeds=[1], settings=same), [1], "seeds")


def check_division(case: Case, run: Path) -> None:
    """Requires the same parameters, whatever the devices, micro-batches and recomputation."""
    source = case.draw.source
    choices = [((), 2), (("sharding='fsdp'",), 2), (("accumulate=2",), 1)]
    if any(part in source for part in RANDOM_PARTS):
        choices = []
    choices.append((("model.remat=('encoders_*', 'fusion')",), 1))
    settings, devices = case.rng.choice(choices)
    same = choose_settings(case)
    plain = case.run(
        "plain", seeds=[0], devices=1, settings=(*same, "accumulate=1", "sharding='replicated'")
    )
    other = case.run("other", seeds=[0], devices=devices, settings=(*same, *settings))
    check_close_runs(plain, other, [0], f"{settings}, {devices} devices")


def check_export(case: Case, run: Path) -> None:
    """Requires that the exported file predicts what the loaded run predicts."""
    seed, form = case.rng.choice(case.seeds), case.rng.choice(("jax", "onnx"))
    out = case.folder / "exported"
    try:
        export_run(run, out, form, seed=seed)
    except ValueError as error:
        raise RefusedError(f"export {form}: {str(error).splitlines()[0]}") from error
    trained = mmjax.load(run, seed=seed)
    examples = case.draw.examples
    if examples is None:
        examples = trained.experiment.data.splits["test"]
    content = next(out.glob("model.*")).read_bytes()
    arrays = prepare_arrays(read_export_spec(out), examples)
    outputs = (run_jax if form == "jax" else run_onnx)(content, arrays)
    predictions = trained.predict(examples)
    for name, values in outputs.items():
        task, field = name.rsplit(".", 1)
        expected = getattr(predictions[task], field)
        low = trained.compute_dtype == "bfloat16"
        if not np.allclose(
            values, expected, rtol=0.03 if low else 1e-4, atol=0.02 if low else 1e-4
        ):
            difference = np.nanmax(np.abs(values - expected))
            raise AssertionError(f"{form}: {name} differs by {difference:.2e}")


CHECKS = (check_resumed, check_from_run, check_seeds, check_division, check_export, check_arms)


def choose_check(case: Case) -> Callable[[Case, Path], None]:
    """Draws one of the checks that fit the experiment."""
    checks = CHECKS if case.draw.has_arms else [c for c in CHECKS if c is not check_arms]
    return case.rng.choice(checks)
