"""An exported model computes what the model predicts, with JAX alone, for any batch size."""

import json
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mmjax import encoders
from mmjax.cli import script
from mmjax.data.dataset import Modality, Task
from mmjax.export import export_run, prepare_arrays, read_export_spec
from mmjax.export.jax_artifact import serialize_for_jax, trace_for_export
from mmjax.export.signature import (
    QUANTITIES,
    flatten_batch,
    make_exported_function,
    make_input_arrays,
    make_random_arrays,
)
from mmjax.inspection.equations import iterate_equations
from mmjax.runs.load import load
from mmjax.runs.prediction.prediction_table import PREDICTION_OF_KIND
from mmjax.runs.prediction.predictions import Outputs
from mmjax.runs.trained import make_trained
from mmjax.train.run_arms import run


def train(experiment, seeds=(0,)):
    """Returns a trained model with the initial parameters of some seeds."""
    batch = experiment.data.splits["test"].take(np.arange(2))
    members = []
    for seed in seeds:
        init = jax.jit(experiment.model.init, static_argnames="method")
        members.append(init(jax.random.key(seed), batch, method="call_all_parts"))
    stacked = jax.tree.map(lambda *x: np.stack(x), *members)
    return make_trained(experiment, stacked, seeds)


@pytest.fixture(scope="module")
def trained(toy):
    return train(toy.experiment(), seeds=(0, 1))


@pytest.fixture(scope="module")
def artifact(trained):
    return serialize_for_jax(trained)


def test_an_artifact_predicts_what_the_model_does(trained, artifact, toy):
    """For an ensemble, several batch sizes, missing modalities and all lengths."""
    call = export.deserialize(bytearray(artifact)).call
    for examples in (1, 7):
        batch = toy.batch(examples, seed=5)
        results = call(flatten_batch(trained.spec, batch))
        expected = trained.predict(batch)
        tolerance = {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(
            results["kind.probabilities"], expected["kind"].probabilities, **tolerance
        )
        np.testing.assert_allclose(results["size.values"], expected["size"].values, **tolerance)


def test_what_is_missing_has_no_effect_and_nothing_at_all_gives_nan(trained, artifact):
    call = export.deserialize(bytearray(artifact)).call
    arrays = make_random_arrays(trained.spec, 4)
    arrays["vector.present"] = np.array([True, False, False, True])
    arrays["sequence.present"] = np.array([True, True, False, True])
    filled = {name: array.copy() for name, array in arrays.items()}
    filled["vector"][1] = np.nan
    arrays["sequence.length"][3], filled["sequence.length"][3] = 2, 2
    filled["sequence"][3, 2:] = 1e9
    plain, garbage = jax.device_get((call(arrays), call(filled)))
    for name in plain:
        np.testing.assert_array_equal(plain[name], garbage[name])
        assert np.isnan(plain[name][2]).all() and np.isfinite(plain[name][[0, 1, 3]]).all()


def test_an_artifact_is_for_all_platforms_and_has_no_kernel_of_one(toy):
    model = toy.model()
    image = {"image": encoders.ConvEncoder(features=(4,))}
    data = toy.dataset()
    batch = data.splits["test"].batch
    pictures = {"image": np.zeros((batch.size, 8, 8, 1), np.float32)}
    present = {"image": np.ones(batch.size, bool)}
    source = type(data.splits["test"])(batch._replace(inputs=pictures, present=present, lengths={}))
    experiment = toy.experiment(
        data=type(data)(
            "images",
            {"image": Modality((8, 8, 1))},
            data.tasks,
            {"test": source, "train": source, "validation": source},
        ),
        model=model.clone(encoders=image),
    )
    convolutional = train(experiment)
    exported = export.deserialize(bytearray(serialize_for_jax(convolutional)))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    targets = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
    assert targets <= {"shape_assertion"}  # which JAX makes of the symbolic batch size
    equations = iterate_equations(trace_for_export(convolutional).jaxpr)
    names = {eqn.primitive.name for eqn in equations}
    assert "conv_general_dilated" in names
    assert not names & {"platform_index", "cond"}


def test_an_artifact_names_the_input_of_a_wrong_shape(trained, artifact):
    call = export.deserialize(bytearray(artifact)).call
    arrays = make_random_arrays(trained.spec, 2)
    with pytest.raises(ValueError, match=r"'vector'.*expected \(batch, 6\)"):
        call(arrays | {"vector": np.zeros((2, 5), np.float32)})
    with pytest.raises(ValueError, match=r"'vector'.*expected float32"):
        call(arrays | {"vector": np.zeros((2, 6), np.int32)})


def test_every_kind_of_task_is_exported_as_it_is_predicted():
    assert QUANTITIES.keys() == PREDICTION_OF_KIND.keys()
    rng = np.random.default_rng(0)
    for kind, (quantity, convert) in QUANTITIES.items():
        shape = (
            (5, 3, 2, 4) if kind == "segmentation" else (5, 3, 4) if kind == "sequence" else (5, 4)
        )
        logits = np.sort(rng.normal(size=shape).astype(np.float32), axis=-1)[..., ::-1].copy()
        task = Task(kind, tuple("abcde" if kind == "ordinal" else "abcd"))
        expected = PREDICTION_OF_KIND[kind].interpret(task, Outputs(logits, np.ones(5, bool)))
        np.testing.assert_allclose(
            convert(jnp.asarray(logits)), getattr(expected, quantity), atol=1e-6
        )


class Chatty(nn.Module):
    """An encoder that prints what it sees."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        jax.debug.callback(lambda x: None, x)
        return encoders.MLPEncoder((4,))(x, length, train=train)


def test_a_call_of_python_is_refused_by_name(toy):
    model = toy.model()
    chatty = model.clone(encoders=model.encoders | {"vector": Chatty()})
    with pytest.raises(ValueError, match=r"'debug_callback' of .*encoders_vector.* calls Python"):
        serialize_for_jax(train(toy.experiment(model=chatty)))


def test_modalities_of_several_arrays_and_names_that_collide_are_refused(trained):
    parts = Modality((), parts={"nodes": Modality((3,)), "edges": Modality((4, 2))})
    graph = trained.spec._replace(modalities={"graph": parts})
    with pytest.raises(ValueError, match="'graph' consists of the arrays nodes, edges"):
        make_input_arrays(graph)
    names = {"a": Modality((1,)), "a.present": Modality((1,))}
    preparations = dict.fromkeys(names, trained.spec.preparations["vector"])
    with pytest.raises(ValueError, match=r"named 'a\.present'; rename a modality"):
        make_input_arrays(trained.spec._replace(modalities=names, preparations=preparations))


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    """A finished run of two seeds, and its export."""
    root = tmp_path_factory.mktemp("exported")
    experiment = toy.experiment(epochs=1)
    run({"all": lambda: experiment}, workdir=root / "run", seeds=(0, 1), devices=1)
    model = load(root / "run", seed=1, experiment=experiment)
    return export_run(root / "run", root / "exported", trained=model), root


PROGRAM = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mmjax", "flax", "optax", "orbax"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import jax, json, numpy as np
folder = sys.argv[1]
spec = json.load(open(folder + "/spec.json"))
call = jax.export.deserialize(bytearray(open(folder + "/" + spec["file"], "rb").read())).call
arrays = dict(np.load(folder + ".npz"))
assert sorted(arrays) == sorted(spec["inputs"])
np.savez(folder + "-results.npz", **jax.device_get(call(arrays)))
"""


@pytest.mark.slow
def test_an_export_runs_with_jax_alone(exported):
    trained, root = exported
    columns = {"vector": [np.zeros(6), None], "sequence": [None, np.ones((3, 3))]}
    arrays = prepare_arrays(read_export_spec(root / "exported"), columns)
    np.savez(root / "exported.npz", **arrays)
    subprocess.run([sys.executable, "-c", PROGRAM, str(root / "exported")], check=True, timeout=300)
    expected, results = trained.predict(columns), np.load(root / "exported-results.npz")
    np.testing.assert_allclose(
        results["kind.probabilities"], expected["kind"].probabilities, atol=1e-5
    )
    np.testing.assert_allclose(results["size.values"], expected["size"].values, atol=1e-5)


def find_block(kind):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    (block,) = re.findall(rf"^```python {kind}\n(.*?)^```$", page, re.M | re.S)
    return block


@pytest.mark.slow
def test_the_page_on_exports_runs(exported, monkeypatch):
    monkeypatch.chdir(exported[1])
    names = {}
    exec(find_block("jax"), names)
    assert np.isnan(names["outputs"]["kind.probabilities"]).all()
    np.savez("new.npz", vector=np.ones((3, 6)), sequence=np.ones((3, 7, 3)))
    exec(find_block("prepare").replace(".csv", ".npz"), names)
    assert names["model"].call(names["arrays"])["size.values"].shape == (3,)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_server_of_the_page_answers(exported, monkeypatch):
    from fastapi.testclient import TestClient

    trained, root = exported
    monkeypatch.chdir(root)
    names = {}
    exec(find_block("serve"), names)
    client = TestClient(names["app"])
    arrays = make_random_arrays(trained.spec, 3)
    arrays["vector.present"][2] = arrays["sequence.present"][2] = False
    body = {name: array.tolist() for name, array in arrays.items()}
    reply = client.post("/predict", json=body)
    assert reply.status_code == 200, reply.text
    expected = make_exported_function(trained)(arrays)["size.values"]
    values = np.array(reply.json()["size.values"], float)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert reply.json()["size.values"][2] is None
    assert client.get("/health").json() == {"status": "ok"}
    for broken in ({}, body | {"vector": [[1.0]] * 3}, body | {"vector": "x"}):
        assert client.post("/predict", json=broken).status_code == 422


@pytest.mark.slow
def test_the_spec_describes_inputs_and_outputs(exported):
    stored = json.loads((exported[1] / "exported" / "spec.json").read_text())
    assert stored["inputs"]["sequence"] == {
        "modality": "sequence",
        "role": "values",
        "shape": ["batch", 7, 3],
        "dtype": "float32",
    }
    assert set(stored["inputs"]) == {
        *("vector", "vector.present"),
        *("sequence", "sequence.present", "sequence.length"),
    }
    assert stored["outputs"]["kind.probabilities"] == {
        "task": "kind",
        "quantity": "probabilities",
        "shape": ["batch", 4],
        "dtype": "float32",
        "kind": "classification",
        "classes": ["a", "b", "c", "d"],
        "unit": "",
    }


@pytest.mark.slow
def test_the_card_tells_data_metrics_parameters_and_provenance(exported):
    root = exported[1]
    card = (root / "exported" / "MODEL_CARD.md").read_text()
    result = json.loads((root / "run" / "all" / "result.json").read_text())
    scores = [result["seeds"][seed]["test"]["kind/accuracy"] for seed in "01"]
    # Student's t with one degree of freedom: 12.706 times the standard error.
    half = 12.7062 * np.std(scores, ddof=1) / np.sqrt(2)
    assert f"| kind/accuracy | {np.mean(scores):.3f} ± {half:.3f} | {scores[1]:.3f} |" in card
    assert "| examples, train | 128 |" in card
    assert f"| total | {result['parameters']['total']:,} |" in card
    assert result["seeds"]["1"]["best_params_sha256"] in card
    assert "sequence: sequences have at most 7 steps" in card


@pytest.mark.slow
def test_an_export_overwrites_nothing_and_leaves_nothing_behind(exported, tmp_path, monkeypatch):
    trained, root = exported
    before = (root / "exported" / "spec.json").read_bytes()
    with pytest.raises(FileExistsError, match="overwrites nothing"):
        export_run(root / "run", root / "exported", trained=trained)
    assert (root / "exported" / "spec.json").read_bytes() == before
    with pytest.raises(ValueError, match="the format 'pt' is unknown; use jax or onnx"):
        export_run(root / "run", tmp_path / "new", "pt", trained=trained)
    with pytest.raises(ValueError, match=r"the folder of .* does not exist"):
        export_run(root / "run", tmp_path / "no" / "new", trained=trained)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("mmjax.files.write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        export_run(root / "run", tmp_path / "new", trained=trained)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_artifact_that_computes_something_else_is_refused(exported, tmp_path, monkeypatch):
    trained, root = exported

    def shift(content, arrays):
        return {
            n: np.asarray(x) + 0.01 for n, x in export.deserialize(content).call(arrays).items()
        }

    from mmjax.export import export_directory as module

    formats = {"jax": module.EXPORT_FORMATS["jax"]._replace(run=shift)}
    monkeypatch.setattr(module, "EXPORT_FORMATS", formats)
    with pytest.raises(ValueError, match=r"differs from the model's by 0\.01"):
        export_run(root / "run", tmp_path / "new", trained=trained)


def test_the_command_refuses_before_it_loads_anything(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit) as end:
        script(["export", "no-run", "--format", "jax", "--out", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "overwrites nothing" in capsys.readouterr().err
