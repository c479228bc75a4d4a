"""The model card of an exported model: what the run recorded about it, as Markdown.

Source: Mitchell et al., "Model Cards for Model Reporting", FAccT 2019 (arXiv:1810.03993).
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from mmjax import files
from mmjax.data.spec import Spec
from mmjax.files.run_files import read_config_file, read_result_file
from mmjax.intervals import format_mean_interval
from mmjax.pretrained.weight_loading import read_recorded_weights
from mmjax.printing.escapes import escape_markdown, format_markdown_table
from mmjax.runs.load import ArmHome
from mmjax.runs.stored_settings import parse_settings
from mmjax.runs.trained import Trained

MODEL_CARD_FILE = "MODEL_CARD.md"
_MAX_CLASSES = 10  # classes of a task that are listed by name
_Rows = list[list[str]]


def format_model_card(
    trained: Trained, home: ArmHome, export_spec: Mapping[str, Any], content: bytes
) -> str:
    """Formats the card of an exported model.

    Args:
      trained: the model.
      home: where its arm is stored; metrics and provenance come from there.
      export_spec: the content of the spec.json beside the artifact.
      content: the artifact.

    Raises:
      DamagedFileError: a file of the run is damaged.
    """
    spec = trained.spec
    result = read_result_file(home.directory / "result.json")
    title = escape_markdown(f"{spec.name}, {', '.join(spec.tasks)}")
    parts = [
        f"# Model card: {title}\n",
        "mmjax generated this card from what the run recorded.\n",
        "## Model\n",
        format_markdown_table(_list_model_facts(trained, home, result), 2, escape=True),
        "Number of parameters:\n",
        format_markdown_table(_list_parameters(result), escape=True),
        "## Inputs and outputs\n",
        f"All arrays begin with the axis of the examples; `spec.json` describes `"
        f"{export_spec['file']}` for programs.\n",
        format_markdown_table(_list_arrays(export_spec), 4, escape=True),
        "## Data\n",
        format_markdown_table(_list_data_facts(spec), 2, escape=True),
        "## Metrics on the test split\n",
        _explain_metrics(trained, result) + "\n",
        format_markdown_table(_list_metrics(trained, result), escape=True),
        "## Provenance\n",
        format_markdown_table(_list_provenance(trained, home, result, content), 2, escape=True),
        "## Limits\n",
        "".join(f"- {line}\n" for line in _list_limits(trained)),
    ]
    return "\n".join(parts)


def _list_model_facts(trained: Trained, home: ArmHome, result: Mapping[str, Any]) -> _Rows:
    rows = [["", "value"], ["arm", home.name]]
    seeds = ", ".join(map(str, trained.seeds))
    is_ensemble = len(trained.seeds) > 1
    rows.append(["members (seeds)" if is_ensemble else "seed", seeds])
    rows.append(["activations", trained.compute_dtype])
    path = home.directory / "config.json"
    if path.is_file():
        settings = parse_settings(read_config_file(path))
        for name, value in settings.items():
            if name.startswith(("model.", "optimizer", "balancer", "epochs", "batch_size")):
                rows.append([name, value])
    rows.append(["training steps", _join_by_seed(result, trained, "steps")])
    rows.append([f"selected step (best {result.get('monitor', 'metric')} on validation)"])
    rows[-1].append(_join_by_seed(result, trained, "best_step"))
    return rows


def _join_by_seed(result: Mapping[str, Any], trained: Trained, field: str) -> str:
    # A value that all seeds share is listed once.
    values = dict.fromkeys(str(result["seeds"][str(seed)][field]) for seed in trained.seeds)
    return ", ".join(values)


def _list_parameters(result: Mapping[str, Any]) -> _Rows:
    counts = [[name, f"{count:,}"] for name, count in result["parameters"].items()]
    return [["part", "parameters"], *counts]


def _list_arrays(export_spec: Mapping[str, Any]) -> _Rows:
    rows = [["array", "shape", "type", "meaning"]]
    meanings = {
        "values": "of the modality",
        "present": "whether an example has the modality",
        "length": "number of steps before the padding",
    }
    for name, array in export_spec["inputs"].items():
        shape = " x ".join(map(str, array["shape"]))
        rows.append([f"input {name}", shape, array["dtype"], meanings[array["role"]]])
    for name, array in export_spec["outputs"].items():
        shape = " x ".join(map(str, array["shape"]))
        meaning = f"{array['quantity']} of {array['task']} ({array['kind']})"
        rows.append([f"output {name}", shape, array["dtype"], meaning])
    return rows


def _list_data_facts(spec: Spec) -> _Rows:
    rows = [["", "value"], ["data set", spec.name]]
    for split, count in spec.examples.items():
        rows.append([f"examples, {split}", f"{count:,}"])
    for m, modality in spec.modalities.items():
        preparation = spec.preparations[m]
        kind = "array" if preparation.kind is None else type(preparation.kind).__name__
        scaled = ", standardized by the training split" if preparation.scale is not None else ""
        rows.append([f"modality {m}", f"{kind}: {modality.describe()}{scaled}"])
    for name, task in spec.tasks.items():
        rows.append([f"task {name}", f"{task.kind}{_describe_targets(task)}"])
    return rows


def _describe_targets(task: Any) -> str:
    if not task.classes:
        return f" in {task.unit}" if task.unit else ""
    names = ", ".join(task.classes[:_MAX_CLASSES])
    more = ", ..." if len(task.classes) > _MAX_CLASSES else ""
    return f", {len(task.classes)} classes: {names}{more}"


def _explain_metrics(trained: Trained, result: Mapping[str, Any]) -> str:
    count = len(result["seeds"])
    text = (
        f"Mean and 95% interval (Student's t) over {count} training seeds on the same test split: "
        "the interval covers the chance of training, not that of the data."
        if count > 1
        else "The arm was trained with one seed, so an interval over seeds cannot be computed."
    )
    if len(trained.seeds) > 1:
        text += (
            " These are metrics of the single members; `Trained.evaluate` computes those of their "
            "ensemble."
        )
    return text


def _list_metrics(trained: Trained, result: Mapping[str, Any]) -> _Rows:
    """Tabulates the metrics over all seeds of the arm, and those of an exported single seed."""
    tests = {int(seed): values["test"] for seed, values in result["seeds"].items()}
    # With a single seed, the first column already holds its values.
    shown = trained.seeds if len(tests) > 1 else ()
    rows = [["metric", "all seeds" if shown else f"seed {next(iter(tests))}"]]
    rows[0] += [f"seed {seed}" for seed in shown]
    for name in dict.fromkeys(name for test in tests.values() for name in test):
        values = [test.get(name, float("nan")) for test in tests.values()]
        row = [name, format_mean_interval(values)]
        row += [format_mean_interval([tests[seed].get(name, float("nan"))]) for seed in shown]
        rows.append(row)
    return rows


def _list_provenance(
    trained: Trained, home: ArmHome, result: Mapping[str, Any], content: bytes
) -> _Rows:
    rows = [["", "value"]]
    for start in _read_starts(home):
        git = start.get("git") or {}
        dirty = " with uncommitted changes" if git.get("dirty") else ""
        versions = start.get("versions") or {}
        rows.append(["started", str(start.get("time", ""))])
        rows.append(["command", str(start.get("command", ""))])
        rows.append(["git revision", f"{git['revision']}{dirty}" if git else "not recorded"])
        rows.append(["versions", ", ".join(f"{n} {v}" for n, v in versions.items() if v)])
        for split, digest in (start.get("data") or {}).items():
            rows.append([f"data, {split} (fingerprint)", str(digest)])
        for name, digest in (start.get("code") or {}).items():
            rows.append([f"code, {name} (SHA-256)", str(digest)])
    for part, digest in read_recorded_weights(home.directory).items():
        rows.append([f"initial weights of {part or 'the model'} (SHA-256)", digest])
    for seed in trained.seeds:
        digest = result["seeds"][str(seed)].get("best_params_sha256", "not recorded")
        rows.append([f"parameters of seed {seed} (SHA-256)", digest])
    rows.append(["artifact (SHA-256)", hashlib.sha256(content).hexdigest()])
    return rows


def _read_starts(home: ArmHome) -> list[dict[str, Any]]:
    """Reads the records of the run's starts; [] for a run that was started from Python."""
    path = home.root / "provenance.json"
    if not path.is_file():
        return []
    starts = files.read_json(path)
    with files.name_damaged_file(path):
        return [dict(start) for start in starts]


def _list_limits(trained: Trained) -> Iterator[str]:
    """Yields the limits that follow from the recorded facts alone, without any judgment."""
    spec = trained.spec
    yield "The metrics hold for data like the test split; on other data they are unknown."
    yield "Metrics of groups of examples were not computed, and the probabilities not calibrated."
    if len(spec.modalities) > 1:
        yield (
            "Any modality may be missing (`present` is false), and the predictions are then less "
            "certain; an example without any gets NaN."
        )
    for m, modality in spec.modalities.items():
        name = escape_markdown(m)
        if modality.sequence:
            yield f"{name}: sequences have at most {modality.shape[0]} steps; longer ones are cut."
        if modality.list_unknown_tokens():
            yield f"{name}: words that the training split lacks are all read as one unknown token."
    for task_name, task in spec.tasks.items():
        if task.classes and task.kind != "multilabel":
            yield (
                f"{escape_markdown(task_name)}: one of {len(task.classes)} classes is predicted "
                "even if none of them fits."
            )
    if len(jax.tree.leaves(spec.examples)) == 0:
        yield "An older mmjax trained the run, so that the sizes of the splits are not recorded."
