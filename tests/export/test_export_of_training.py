"""Exports of models that were trained in every way that changes what a run stores."""

import json

import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from mmjax import fusion, heads
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.experiment import Experiment
from mmjax.export import export_run, read_export_spec
from mmjax.export.export_directory import EXPORT_FORMATS
from mmjax.export.signature import flatten_batch
from mmjax.model import Model
from mmjax.pretrained import LoRA, backbones
from mmjax.runs.load import load
from mmjax.sharing import HardSharing
from mmjax.train.run_arms import run
from mmjax.types import Batch

FROZEN = ("fusion/*", "sharing/*", "heads_*")
# {name: (options of the experiment, seeds)}
TRAININGS = {
    "bfloat16": ({"compute_dtype": "bfloat16"}, (0,)),
    "batch norm": ({}, (0,)),
    "low-rank updates": ({"lora": {"encoders_text/*/query/kernel": LoRA(2)}}, (0,)),
    "cached frozen encoder": ({"trainable": FROZEN, "cache_frozen": True}, (0, 1)),
    "averaged parameters": ({"ema": 0.9}, (0, 1)),
}


def make_batch(examples, seed):
    """Photos and texts that tell the class, one or the other missing in a third of the examples."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, examples)
    photo = rng.random((examples, 8, 8, 3)) / 2 + kind[:, None, None, None] / 4
    lengths = rng.integers(1, 8, examples).astype(np.int32)
    text = np.where(np.arange(7) < lengths[:, None], 2 + kind[:, None], 0)
    return Batch(
        {"photo": photo.astype(np.float32), "text": text.astype(np.int32)},
        {"photo": np.arange(examples) % 3 != 1, "text": np.arange(examples) % 3 != 2},
        {"text": lengths},
        {"kind": kind.astype(np.int32), "size": (10.0 * kind + 3).astype(np.float32)},
        {"kind": np.ones(examples, bool), "size": np.ones(examples, bool)},
    )


def make_experiment(name):
    photo = backbones.ViT(width=8, layers=2, heads=2, hidden=16, patch=4, image=8)
    if name == "batch norm":
        photo = backbones.ResNet((1, 1), (4, 8), stem=4)
    text = backbones.BERT(vocabulary=9, width=8, layers=2, heads=2, hidden=16, positions=16)
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        splits[split] = Arrays(make_batch(24, seed))
    return Experiment(
        data=Dataset(
            "photos",
            {"photo": Modality((8, 8, 3)), "text": Modality((7,), sequence=True)},
            {"kind": Task("classification", tuple("abc")), "size": Task("regression")},
            splits,
        ),
        model=Model(
            {"photo": photo, "text": text},
            fusion.Gated(width=8),
            {"kind": heads.Classification(3), "size": heads.Regression(mean=13.0, scale=8.0)},
            HardSharing((8,)),
        ),
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=12,
        eval_batch_size=24,
        **TRAININGS[name][0],
    )


@pytest.fixture(scope="module", params=TRAININGS)
def trained_run(request, tmp_path_factory):
    """The directory of a finished run, and its trained model."""
    directory = tmp_path_factory.mktemp("run")
    experiment = make_experiment(request.param)
    seeds = TRAININGS[request.param][1]
    run({"all": lambda: experiment}, workdir=directory, seeds=seeds, devices=1)
    return request.param, directory, load(directory, experiment=experiment)


@pytest.mark.parametrize(
    "format",
    [
        pytest.param("jax", marks=pytest.mark.slow),
        pytest.param("onnx", marks=[pytest.mark.reference, pytest.mark.filterwarnings("ignore")]),
    ],
)
def test_an_export_predicts_what_the_trained_model_does(trained_run, format, tmp_path):
    """For batches of several sizes with missing modalities and all lengths."""
    name, directory, trained = trained_run
    export_run(directory, tmp_path / "out", format, trained=trained)
    stored = json.loads((tmp_path / "out" / "spec.json").read_text())
    is_rounded = name == "bfloat16" and format == "jax"
    assert stored["compute_dtype"] == ("bfloat16" if is_rounded else "float32")
    assert not [path for path in flatten_dict(trained.params) if "lora" in path[-1]]
    content = (tmp_path / "out" / EXPORT_FORMATS[format].file).read_bytes()
    spec = read_export_spec(tmp_path / "out")
    # bfloat16 has 8 bits: sums in another order differ by 2^-8 of the activations.
    tolerance = 3e-2 if name == "bfloat16" else 1e-4
    for count in (1, 5, 24):
        batch = make_batch(count, seed=7)
        results = EXPORT_FORMATS[format].run(content, flatten_batch(spec, batch))
        expected = trained.predict(batch)
        np.testing.assert_allclose(
            results["kind.probabilities"], expected["kind"].probabilities, atol=tolerance
        )
        # In units of the head: a regression is mean + scale * x.
        gap = results["size.values"] - expected["size"].values
        np.testing.assert_allclose(gap / 8, 0, atol=tolerance)
