"""Errors about parts of a model that do not fit: they name the part, its input and the fix."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.auxiliary import InfoNCE
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import (
    ConvEncoder,
    MLPEncoder,
    RecurrentEncoder,
    ResidualEncoder,
    TextEncoder,
    Wrap,
)
from mmjax.experiment import Experiment
from mmjax.fusion import (
    AttentionPool,
    Bottleneck,
    Concat,
    CrossModal,
    EarlyTransformer,
    FiLM,
    HEALNet,
    Late,
    Perceiver,
)
from mmjax.heads import Classification, Regression, Segmentation, SequenceLabeling
from mmjax.inspection.model_check import check_model_fits_batch, trace_model
from mmjax.inspection.model_parts import make_batch_shapes
from mmjax.kernels.attention import Attention
from mmjax.model import Model
from mmjax.sharing import CGC, HardSharing
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.types import Batch, Tokens

B = 4
LENGTH = {"sequence": np.full(B, 7, np.int32), "text": np.full(B, 9, np.int32)}
INPUTS = {
    "vector": np.zeros((B, 6), np.float32),
    "sequence": np.zeros((B, 7, 3), np.float32),
    "image": np.zeros((B, 8, 8, 1), np.uint8),
    "text": np.zeros((B, 9), np.int32),
}
TARGETS = {
    "kind": np.zeros(B, np.int32),
    "size": np.zeros(B, np.float32),
    "steps": np.zeros((B, 7), np.int32),
    "pixels": np.zeros((B, 8, 8), np.int32),
}
ENCODERS = {
    "vector": MLPEncoder((8,)),
    "sequence": RecurrentEncoder(width=5),
    "image": ConvEncoder((4,)),
    "text": TextEncoder(embedding=3, encoder=RecurrentEncoder(width=4)),
}


def fit(encoders=("vector", "sequence"), fusion=None, heads=None, **options):
    """Checks a model; modalities that are only named have an encoder that fits."""
    if not isinstance(encoders, dict):
        encoders = {m: ENCODERS[m] for m in encoders}
    heads = heads or {"kind": Classification(4), "size": Regression()}
    inputs = {m: INPUTS[m] for m in encoders}
    batch = Batch(
        inputs=inputs,
        present={m: np.ones(B, bool) for m in inputs},
        lengths={m: LENGTH[m] for m in inputs if m in LENGTH},
        targets={t: TARGETS[t] for t in heads},
        labeled={t: np.ones(B, bool) for t in heads},
    )
    check_model_fits_batch(Model(encoders, fusion or Concat(), heads, **options), batch)


class Plain(nn.Module):
    """An encoder that forgets its tokens."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        return nn.Dense(3)(x)


class Broken(nn.Module):
    """An encoder with a bug."""

    def __call__(self, x, length=None, *, train):
        return x.no_such_attribute


class PlainSum(nn.Module):
    """A fusion that adds vectors as they are."""

    def __call__(self, tokens, *, train):
        return functools.reduce(jnp.add, [t.values[:, 0] for t in tokens.values()])


class OneModality(nn.Module):
    """A fusion that hands on the tokens of one modality, as they are or with their mask."""

    modality: str
    mask: bool = False

    def __call__(self, tokens, *, train):
        return tokens[self.modality] if self.mask else tokens[self.modality].values


class SameForAll(nn.Module):
    """A sharing that hands on what it gets."""

    def __call__(self, x, tasks, *, train):
        return dict.fromkeys(tasks, x)


class OneForAll(nn.Module):
    """A sharing that does not say which task gets what."""

    def __call__(self, x, tasks, *, train):
        return x


STEPS = {"vector": MLPEncoder((8,)), "sequence": RecurrentEncoder(width=5, output="all")}
MISFITS = {
    "a vector for a recurrent encoder": (
        lambda: fit({"vector": RecurrentEncoder()}),
        r"model\.encoders\.vector \(RecurrentEncoder\) gets float32\[4 6\]: .*needs sequences "
        r"\[b time d\].*; give scalars a last axis of 1",
    ),
    "an image for a recurrent encoder": (
        lambda: fit({"image": RecurrentEncoder()}),
        r"model\.encoders\.image \(RecurrentEncoder\) gets uint8\[4 8 8 1\]: .*needs sequences",
    ),
    "a sequence for a convolutional encoder": (
        lambda: fit({"sequence": ConvEncoder()}),
        r"model\.encoders\.sequence \(ConvEncoder\) gets float32\[4 7 3\]: .*needs images .*; "
        "give gray images a channel axis of 1",
    ),
    "an image too small": (
        lambda: fit({"image": ConvEncoder((4, 4, 4, 4))}),
        r"model\.encoders\.image \(ConvEncoder\) .*8x8 is too small.*give ConvEncoder fewer layers",
    ),
    "floats for a text encoder": (
        lambda: fit({"sequence": TextEncoder()}),
        r"model\.encoders\.sequence \(TextEncoder\) .*needs integer tokens \[b time\]",
    ),
    "an image for an encoder inside another": (
        lambda: fit({"text": TextEncoder(encoder=ConvEncoder())}),
        r"model\.encoders\.text \(TextEncoder\) gets int32\[4 9\]: ConvEncoder needs images",
    ),
    "an encoder in a copy of the backbone": (
        lambda: fit({"vector": ConvEncoder()}, sharing=CGC(1, 1, backbones=True)),
        r"model\.encoders\.vector \(ConvEncoder\) gets float32\[4 6\]: ConvEncoder needs images",
    ),
    "a module that Flax refuses": (
        lambda: fit({"vector": Wrap(nn.Conv(3, (3, 3)))}),
        r"model\.encoders\.vector \(Wrap\) gets float32\[4 6\]: .+Give the modality an encoder",
    ),
    "an encoder that returns no tokens": (
        lambda: fit({"vector": Plain()}),
        r"model\.encoders\.vector \(Plain\) gets float32\[4 6\]: it returns float32\[4 3\], but an "
        r"encoder returns Tokens.*mmjax\.encoders\.Wrap",
    ),
    "cross-modal attention to pooled encoders": (
        lambda: fit(fusion=CrossModal(8)),
        r"model\.fusion \(CrossModal\) gets sequence float32\[4 1 5\], vector float32\[4 1 8\]: "
        r".*every encoder returns one token.*output='all', or use EarlyTransformer",
    ),
    "separate bottleneck layers after pooled encoders": (
        lambda: fit(fusion=Bottleneck(8, separate=1)),
        r"model\.fusion \(Bottleneck\) .*every encoder returns one token.*set separate to 0",
    ),
    "unequal widths in a sum": (
        lambda: fit(fusion=PlainSum()),
        r"model\.fusion \(PlainSum\) gets sequence float32\[4 1 5\], vector float32\[4 1 8\]: "
        r".*shapes.*\. Let it project the modalities to what it needs, or use another fusion\.",
    ),
    "a fusion that returns masked tokens": (
        lambda: fit(fusion=OneModality("vector", mask=True)),
        r"model\.fusion \(OneModality\) .*returns float32\[4 1 8\], but a fusion returns one "
        r"vector.*pool tokens by mmjax\.fusion\.pool",
    ),
    "a modality that is not there": (
        lambda: fit(fusion=FiLM(4, modulated="smell")),
        r"model\.fusion \(FiLM\) .*modulated is 'smell', but the modalities are sequence, vector",
    ),
    "a sharing without tasks": (
        lambda: fit(sharing=OneForAll()),
        r"model\.sharing \(OneForAll\) gets float32\[4 13\]: it returns float32\[4 13\], but a "
        r"sharing returns .* put them into \{task: features\}",
    ),
    "a head of vectors that gets tokens": (
        lambda: fit(fusion=OneModality("vector"), sharing=SameForAll()),
        r"model\.heads\.kind \(Classification\) gets float32\[4 1 8\]: it needs one vector.*"
        "let the fusion pool the tokens",
    ),
    "a head of tokens that is given none": (
        lambda: fit(heads={"steps": SequenceLabeling(3)}),
        r"head of 'steps' needs tokens: give SequenceLabeling tokens=, one of \['sequence'",
    ),
    "tokens under late fusion": (
        lambda: fit(STEPS, Late(4), {"steps": SequenceLabeling(3, tokens="sequence")}),
        "head of 'steps' gets tokens .* late fusion makes predictions only; use another fusion",
    ),
    "a decoder that gets too many tokens": (
        lambda: fit(
            {"image": ResidualEncoder((4,), output="all")},
            heads={"pixels": Segmentation(3, (8, 8), tokens="image")},
        ),
        r"model\.heads\.pixels \(Segmentation\) gets float32\[4 64 8\]: .*needs a vector \[b d\] "
        r"or 2x2 tokens \[b 4 d\].*change the head's features, or the encoder's poolings",
    ),
    "labels for steps that the encoder does not keep": (
        lambda: fit(heads={"steps": SequenceLabeling(3, tokens="sequence")}),
        r"model\.heads\.steps \(SequenceLabeling\) predicts float32\[4 1 3\] for targets "
        r"int32\[4 7\]: .*let the encoder keep every step of time",
    ),
    "an objective that needs two modalities": (
        lambda: fit(("vector",), auxiliary={"align": InfoNCE(4)}),
        r"model\.auxiliary\.align \(InfoNCE\) gets vector float32\[4 1 8\]: .*compares modalities.*"
        "give the model another encoder",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named_with_its_mend(case):
    make, message = MISFITS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


@pytest.mark.parametrize("fusion", [EarlyTransformer, CrossModal, Bottleneck, Perceiver, HEALNet])
def test_heads_that_do_not_divide_the_width_are_refused_where_the_fusion_is_made(fusion):
    with pytest.raises(ValueError, match="width of 30 cannot be shared by 4 attention heads"):
        fusion(width=30)
    with pytest.raises(ValueError, match="width of 9 cannot be shared by 2 attention heads"):
        AttentionPool(9, heads=2)


FITS = {
    "attention over vectors": {"fusion": EarlyTransformer(8)},
    "latents over vectors": {"fusion": Perceiver(8)},
    "bottlenecks between vectors": {"fusion": Bottleneck(8)},
    "cross-modal attention to steps": {"encoders": STEPS, "fusion": CrossModal(8)},
    "cross-modal attention of one modality": {"encoders": ("vector",), "fusion": CrossModal(8)},
    "separate layers over steps": {"encoders": STEPS, "fusion": Bottleneck(8, separate=1)},
    "separate layers of one modality": {
        "encoders": ("vector",),
        "fusion": Bottleneck(8, separate=1),
    },
    "steps with labels": {
        "encoders": STEPS,
        "heads": {"steps": SequenceLabeling(3, tokens="sequence"), "kind": Classification(4)},
    },
    "an image's map with labels": {
        "encoders": {"image": ResidualEncoder((4, 4, 4), output="all")},
        "heads": {"pixels": Segmentation(3, (8, 8), tokens="image")},
    },
    "an objective": {"auxiliary": {"align": InfoNCE(4)}},
    "a function as an objective": {
        "auxiliary": {"one": lambda seen, predictions, batch, *, train, gather: (1.0, 1.0)}
    },
    "late fusion over copies": {"fusion": Late(4), "sharing": CGC(1, 1, backbones=True)},
    "everything": {"encoders": tuple(ENCODERS)},
}


@pytest.mark.parametrize("case", FITS)
def test_what_fits_passes(case):
    fit(**FITS[case])


def test_a_bug_in_a_part_is_left_as_it_is():
    with pytest.raises(AttributeError, match="no_such_attribute"):
        fit({"vector": Broken()})


@pytest.mark.parametrize("count", [1, 2])
def test_attention_to_one_token_learns_no_queries_and_keys(count):
    """Why it is refused: the softmax of one number is 1, whatever the number."""
    rng = np.random.default_rng(0)
    queries, values = (jnp.asarray(rng.normal(size=(B, n, 4)), jnp.float32) for n in (1, count))
    context = Tokens(values, jnp.ones((B, count), bool))
    attention = Attention(2)

    def loss(params):
        return (attention.apply(params, queries, context) ** 2).sum()

    shapes = jax.eval_shape(attention.init, jax.random.key(0), queries, context)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), shapes)
    found = jax.jit(jax.grad(loss))(params)["params"]["heads"]
    assert (jnp.abs(found["value"]["kernel"]) > 0).any()
    for name in ("query", "key"):
        assert (found[name]["kernel"] == 0).all() == (count == 1)


def dataset():
    """A vector and a sequence with labels of both."""
    here = {"vector": np.ones(B, bool), "sequence": np.ones(B, bool)}
    batch = Batch(
        inputs={m: INPUTS[m] for m in here},
        present=here,
        lengths={"sequence": LENGTH["sequence"]},
        targets={"kind": np.arange(B, dtype=np.int32)},
        labeled={"kind": np.ones(B, bool)},
    )
    return Dataset(
        "small",
        {"vector": Modality((6,)), "sequence": Modality((7, 3), sequence=True)},
        {"kind": Task("classification", tuple("abcd"))},
        {split: Arrays(batch) for split in ("train", "validation", "test")},
    )


def experiment(fusion):
    return Experiment(
        data=dataset(),
        model=Model(
            {m: ENCODERS[m] for m in ("vector", "sequence")}, fusion, {"kind": Classification(4)}
        ),
        optimizer=optax.sgd(0.1),
        batch_size=2,
        eval_batch_size=2,
    )


def test_an_experiment_is_checked_without_compiling_anything():
    compiled = []

    def listen(event, duration, **_):
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        check_experiment(experiment(Concat()), 1)
        with pytest.raises(ValueError, match=r"model\.fusion \(CrossModal\) gets .*\[2 1 5\]"):
            check_experiment(experiment(CrossModal(8)), 1)
        assert not [event for event in compiled if "backend_compile" in event]
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))  # which would have been noticed
        assert [event for event in compiled if "backend_compile" in event]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_trace_has_each_part_once_with_its_copies():
    model = Model(
        {m: ENCODERS[m] for m in ("vector", "sequence")},
        Concat(),
        {"kind": Classification(4), "size": Regression()},
        HardSharing((5,)),
        auxiliary={"align": InfoNCE(4)},
    )
    batch = make_batch_shapes(experiment(Concat()).data.splits["train"].batch, 3)
    calls = trace_model(model, batch).calls
    assert {name: call.part.path for name, call in calls.items()} == {
        "encoders_vector": "encoders.vector",
        "encoders_sequence": "encoders.sequence",
        "fusion": "fusion",
        "sharing": "sharing",
        "heads_kind": "heads.kind",
        "heads_size": "heads.size",
        "auxiliary_align": "auxiliary.align",
    }
    assert calls["fusion"].output.shape == (3, 13)
    copied = trace_model(model.clone(sharing=CGC(2, 1, backbones=True), auxiliary={}), batch).calls
    assert {name: call.part.copies for name, call in copied.items() if "fusion" in name} == {
        "fusion": 2,
        "own_fusion": 2,
    }


def test_so_many_layers_that_tracing_would_never_end_are_refused():
    walk = RecurrentEncoder(layers=2**31 - 1)
    with pytest.raises(ValueError, match=r"model\.encoders\.\w+\.layers is 2147483647; it must be"):
        fit({"vector": walk})


def test_a_head_among_the_encoders_and_an_encoder_among_the_heads_are_refused():
    of_heads = experiment(Concat())
    model = of_heads.model.clone(encoders={"vector": Classification(4)})
    with pytest.raises(
        ValueError, match=r"model\.encoders\.vector is a Classification, which is a"
    ):
        check_experiment(dataclasses.replace(of_heads, model=model), 1)
    model = of_heads.model.clone(heads={"kind": TextEncoder(5)})
    with pytest.raises(
        ValueError, match=r"model\.heads\.kind is a TextEncoder, which is not a head"
    ):
        check_experiment(dataclasses.replace(of_heads, model=model), 1)


def test_a_head_cannot_use_the_names_that_evaluation_adds():
    class Counting(Classification):
        def statistics(self, prediction, target):
            return {"examples": jnp.ones(())}

    message = r"heads\.kind \(Counting\) .* it has statistics named \['examples'\]"
    with pytest.raises(ValueError, match=message):
        fit(heads={"kind": Counting(4)})
