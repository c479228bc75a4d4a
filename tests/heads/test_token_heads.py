"""Heads that label every token, in the context of all modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.balance import equal
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder, RecurrentEncoder, ResidualEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat, Late
from mmjax.heads import Classification, Segmentation, SequenceLabeling
from mmjax.model import Model
from mmjax.sharing import CGC, TaskSpecific
from mmjax.train.loop import fit
from mmjax.types import Batch

T = 6


def signs(examples, seed):
    """A step's label is its sign times that of a vector which stands beside the sequence."""
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1, 1], examples)
    steps = rng.choice([-1, 1], (examples, T))
    lengths = rng.integers(1, T + 1, examples).astype(np.int32)
    inside = np.arange(T)[None] < lengths[:, None]
    all_here = np.ones(examples, bool)
    return Batch(
        inputs={
            "sequence": steps[:, :, None].astype(np.float32),
            "vector": sign[:, None].astype(np.float32),
        },
        present={"sequence": all_here, "vector": all_here},
        lengths={"sequence": lengths},
        targets={
            "same": np.where(inside, steps * sign[:, None] > 0, -1).astype(np.int32),
            "sign": (sign > 0).astype(np.int32),
        },
        labeled={"same": all_here, "sign": all_here},
    )


def make_model(**changes):
    parts = {
        "encoders": {
            "sequence": RecurrentEncoder(width=4, output="all"),
            "vector": MLPEncoder(features=(5,)),
        },
        "fusion": Concat(),
        "heads": {
            "same": SequenceLabeling(2, tokens="sequence", hidden=(16,)),
            "sign": Classification(2),
        },
    }
    return Model(**(parts | changes))


@pytest.mark.slow
def test_every_step_is_labelled_by_itself_and_by_the_other_modality(tmp_path):
    sizes = {"train": 512, "validation": 64, "test": 256}
    modalities = {"sequence": Modality((T, 1), sequence=True), "vector": Modality((1,))}
    tasks = {
        "same": Task("sequence", ("other", "same"), shape=(T,)),
        "sign": Task("classification", ("minus", "plus")),
    }
    splits = {name: Arrays(signs(n, i)) for i, (name, n) in enumerate(sizes.items())}
    experiment = Experiment(
        data=Dataset("signs", modalities, tasks, splits),
        model=make_model(),
        optimizer=optax.adam(2e-2),
        balancer=equal(),
        epochs=10,
        batch_size=64,
    )
    test = fit(experiment, tmp_path, devices=jax.devices()[:1]).test[0]
    # By the steps alone, or by the vector alone, no better than chance.
    assert test["same/accuracy"] > 0.97
    assert test["sign/accuracy"] > 0.97


@pytest.mark.parametrize(
    "sharing", [TaskSpecific(), CGC(shared=2, own=1, features=(4,), backbones=True)]
)
def test_tokens_stem_from_the_backbones_that_the_task_sees(sharing):
    model, batch = make_model(sharing=sharing), jax.tree.map(jnp.asarray, signs(3, 0))
    args = (batch.inputs, batch.present, batch.lengths)
    params = jax.jit(lambda: model.init(jax.random.key(0), *args, train=False))()["params"]

    @jax.jit
    def gradient(params):
        def loss(params):
            return (model.apply({"params": params}, *args, train=False)["same"] ** 2).sum()

        return jax.grad(loss)(params)

    # Own copies are stacked by task: "same" first, then "sign".
    own = gradient(params)["own_encoders_sequence"]
    moved = [max(float(jnp.abs(leaf[i]).max()) for leaf in jax.tree.leaves(own)) for i in (0, 1)]
    assert moved[0] > 0
    assert moved[1] == 0


@pytest.mark.slow
def test_a_map_is_decoded_beside_the_features():
    model = Model(
        encoders={
            "image": ResidualEncoder(widths=(3, 4), output="all"),
            "vector": MLPEncoder(features=(3,)),
        },
        fusion=Concat(),
        heads={"where": Segmentation(2, (8, 8), tokens="image", decoder=(4,))},
    )
    rng = np.random.default_rng(0)
    here = {"image": jnp.ones(2, bool), "vector": jnp.ones(2, bool)}
    inputs = {
        "image": jnp.asarray(rng.normal(size=(2, 8, 8, 1)), jnp.float32),
        "vector": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
    }
    found, params = model.init_with_output(jax.random.key(0), inputs, here, {}, train=False)
    assert found["where"].shape == (2, 8, 8, 2)
    other = inputs | {"vector": inputs["vector"] + 1}
    changed = model.apply(params, other, here, {}, train=False)
    assert jnp.abs(changed["where"] - found["where"]).max() > 1e-4


def test_what_cannot_be_labelled_is_refused():
    with pytest.raises(
        ValueError, match=r"give SequenceLabeling tokens=, one of \['sequence', 'vector'"
    ):
        make_model(heads={"same": SequenceLabeling(2)})
    with pytest.raises(ValueError, match="tokens='text'"):
        make_model(heads={"same": SequenceLabeling(2, tokens="text")})
    model, batch = make_model(fusion=Late(4)), signs(2, 0)
    with pytest.raises(ValueError, match="use another fusion"):
        model.init(jax.random.key(0), *batch[:3], train=False)
