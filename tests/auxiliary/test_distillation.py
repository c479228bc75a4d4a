"""Distillation: from a run on disk to a student that does as the teacher, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import cli
from mmjax.auxiliary import Distillation, Teacher
from mmjax.cli import jax_setup
from mmjax.data.dataset import Modality
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat, Mean
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.runs.teacher import trained
from mmjax.sharing import TaskSpecific
from mmjax.types import Batch

FILE = '''"""Two vectors that share a bit."""

import optax

from mmjax import Experiment, Model, auto_config
from mmjax.config import single_modality
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification


def classes() -> int:
    return 2


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=interactions(train=256, validation=64, test=64),
        model=Model(
            encoders={"a": MLPEncoder((6,)), "b": MLPEncoder((6,))},
            fusion=Concat(),
            heads={"redundancy": Classification(classes())},
        ),
        optimizer=optax.adam(1e-2),
        epochs=4,
        batch_size=32,
    )


ARMS = single_modality
'''
TEACHER = 'mmjax.runs.teacher:trained("first","a",seed=1,allow_code=True)'
TEACH = f"model.auxiliary.umt=Distillation({TEACHER}{{}})"


def command(*argv):
    cli.script([*argv, "--no-compilation-cache", "--devices", "1"])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A directory with an experiment and a run of it: three arms, two seeds."""
    place = tmp_path_factory.mktemp("distillation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(jax_setup, "set_compilation_cache", lambda directory: None)
        Path("mine.py").write_text(FILE)
        command("run", "mine.py", "--workdir", "first", "--seeds", "0", "1")
        yield place


def log(name, run="second"):
    lines = Path(run, "all", "metrics-seed0.jsonl").read_text().splitlines()
    return [x[name] for x in map(json.loads, lines) if name in x]


@pytest.mark.slow
def test_a_student_learns_from_a_trained_arm(first, capsys):
    """From the command line; the student's run holds nothing of the teacher but its name."""
    Path("alone.py").write_text(FILE.replace("ARMS = single_modality\n", ""))
    balancer = 'balancer=static({"redundancy": 1.0, "umt": 20.0})'
    settings = (TEACH.format(', tasks=("redundancy",)'), balancer, "epochs=30")
    sets = [word for s in settings for word in ("--set", s)]
    command("run", "alone.py", "--workdir", "second", *sets)
    losses = log("train/loss/umt")
    assert losses[-1] < 0.1 * losses[0]
    assert set(log("train/weight/umt")) == {20.0}
    result = json.loads(Path("second/summary.json").read_text())["all"]
    assert not [part for part in result["parameters"] if "auxiliary" in part]
    config = Path("second/config.json").read_text()
    assert '/first"' in config and "kernel" not in config

    for more, said in (
        ([], "second uses classes of its experiment's own file"),
        (["--allow-code"], "trained of module 'mmjax.runs.teacher', which is not trusted"),
        (["--allow-code"], "add --allow mmjax.runs.teacher"),
    ):
        with pytest.raises(SystemExit):
            command("evaluate", "second", *more)
        assert said in capsys.readouterr().err
    command("evaluate", "second", "--allow", "mmjax.runs.teacher", "--allow-code")
    assert "redundancy" in capsys.readouterr().out


@pytest.mark.slow
def test_the_teacher_is_the_best_of_its_arm_and_seed(first):
    """Its predictions on the test split have the accuracy that the run found."""
    results = json.loads(Path("first/summary.json").read_text())["b"]["seeds"]
    for seed, result in results.items():
        teacher = trained("first", "b", seed=int(seed), allow_code=True)
        assert list(teacher.model.encoders) == ["b"]
        assert teacher.modalities["b"].shape
        assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(teacher.params))
        from mmjax.data.builtin.interactions import interactions

        test = interactions(train=256, validation=64, test=64).splits["test"].batch
        inputs, present = ({"b": part["b"]} for part in (test.inputs, test.present))
        logits = teacher.model.apply({"params": teacher.params}, inputs, present, {}, train=False)
        right = np.argmax(logits["redundancy"], -1) == test.targets["redundancy"]
        assert right.mean() == pytest.approx(result["test"]["redundancy/accuracy"])
    default = trained("first", "b", allow_code=True)
    zero = trained("first", "b", seed=0, allow_code=True)
    jax.tree.map(np.testing.assert_array_equal, default.params, zero.params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directory": "nowhere", "arm": "a"}, "nowhere holds no run: it has no config.json"),
        ({"directory": "first", "arm": "c"}, r"has no arm 'c', only \['a', 'all', 'b'\]"),
        ({"directory": "first", "arm": "a", "seed": 7}, r"has no seed 7, only \[0, 1\]"),
    ],
)
def test_a_run_that_is_not_there(first, arguments, message):
    with pytest.raises(ValueError, match=message):
        trained(**arguments)


@pytest.mark.slow
def test_a_run_without_parameters_or_with_others(first):
    with pytest.raises(ValueError, match=r"write trained\(..., allow_code=True\)"):
        trained("first", "a")
    place = Path("first/a/checkpoints")
    place.rename("kept")
    try:
        with pytest.raises(ValueError, match="first/a has no checkpoint; train first"):
            trained("first", "a", allow_code=True)
    finally:
        Path("kept").rename(place)


# The objective itself, with teachers made by hand.


def make_model(modalities=("a",), width=3, classes=4, auxiliary=None, **options):
    return Model(
        encoders={m: MLPEncoder((width,)) for m in modalities},
        **{"fusion": Mean(5), **options},
        heads={"kind": Classification(classes), "size": Regression()},
        auxiliary={"umt": auxiliary} if auxiliary else {},
    )


def make_batch(modalities=("a", "b"), examples=12):
    rng = np.random.default_rng(0)
    return Batch(
        inputs={m: rng.normal(size=(examples, 5)).astype(np.float32) for m in modalities},
        present={m: rng.random(examples) < 0.7 for m in modalities},
        lengths={},
        targets={"kind": np.zeros(examples, np.int32), "size": np.zeros(examples, np.float32)},
        labeled={t: np.zeros(examples, bool) for t in ("kind", "size")},
    )


def make_teacher(modalities=("a",), shape=(5,), **options):
    model = make_model(modalities, **options)
    params = model.init(jax.random.key(5), *make_batch(modalities)[:3], train=False)["params"]
    return Teacher(model, jax.device_get(params), dict.fromkeys(modalities, Modality(shape)))


def start(objective, **options):
    model = make_model(("a", "b"), auxiliary=objective, **options)
    return model, model.init(jax.random.key(0), make_batch(), method="call_all_parts")["params"]


def total_and_count(model, params, batch):
    _, seen = model.apply(
        {"params": params}, *batch[:3], train=False, method="represent_and_record"
    )
    sums = model.apply(
        {"params": params}, {"umt": seen}, batch, train=False, gather=lambda x: x,
        method="compute_objectives",
    )  # fmt: skip
    return sums["umt"]


def test_the_loss_by_hand():
    """One hidden layer each: squared differences, and Hinton's divergence, of those that have a."""
    teacher, batch = make_teacher(), make_batch()
    model, params = start(Distillation(teacher, tasks=("kind",), temperature=3.0))
    here = batch.present["a"]

    def hidden(params):
        layer = params["encoders_a"]["Dense_0"]
        x = np.where(here[:, None], batch.inputs["a"], 0)
        return np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)

    features = ((hidden(params) - hidden(teacher.params)) ** 2).mean(1)[here].sum()
    logits = [
        m.apply({"params": p}, *({"a": x["a"]} if m is teacher.model else x for x in batch[:2]),
                {}, train=False)["kind"]
        for m, p in ((model, params), (teacher.model, teacher.params))
    ]  # fmt: skip
    q, p = (np.exp(x / 3) / np.exp(x / 3).sum(1, keepdims=True) for x in map(np.asarray, logits))
    divergence = 9 * (p * np.log(p / q)).sum(1)[here].sum()
    total, count = total_and_count(model, params, batch)
    np.testing.assert_allclose(total, features + divergence, rtol=1e-4)
    assert count == here.sum()


def test_the_teacher_itself_has_nothing_to_learn_and_gets_no_slope():
    teacher, batch = make_teacher(), make_batch()
    model, params = start(Distillation(teacher))
    params |= {"encoders_a": teacher.params["encoders_a"]}
    (total, count), slopes = jax.value_and_grad(
        lambda p: total_and_count(model, p, batch), has_aux=True
    )(jax.tree.map(jnp.asarray, params))
    assert total == 0 and count > 0
    assert max(np.abs(g).max() for g in jax.tree.leaves(slopes)) == 0
    assert not [part for part in params if part.startswith("auxiliary")]


def test_a_teacher_of_both_modalities():
    teacher, batch = make_teacher(("a", "b")), make_batch()
    model, params = start(Distillation(teacher))
    both = total_and_count(model, params, batch)
    parts = []
    for m in ("a", "b"):
        own = {k: v for k, v in teacher.params.items() if not k.startswith("encoders_")}
        own |= {f"encoders_{m}": teacher.params[f"encoders_{m}"]}
        one = Teacher(make_model((m,)), own, {m: Modality((5,))})
        parts.append(total_and_count(start(Distillation(one))[0], params, batch)[0])
    np.testing.assert_allclose(both[0], sum(parts), rtol=1e-5)
    assert both[1] == (batch.present["a"] | batch.present["b"]).sum()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: Distillation(make_teacher(("c",))),
            {},
            r"The teacher was trained on 'c', but the model encodes only \['a', 'b'\]",
        ),
        (
            lambda: Distillation(make_teacher(width=7)),
            {},
            "The encoder of 'a' has width 3, but the teacher's has 7; make them equal, or compare",
        ),
        (
            lambda: Distillation(make_teacher(shape=(6,))),
            {},
            r"trained on 'a' of shape \(6,\), but the data have \(5,\); train it on the same data",
        ),
        (
            lambda: Distillation(make_teacher(classes=3), tasks=("kind",)),
            {},
            r"predicts \(3,\) logits of 'kind', but the model \(4,\); train it on the same task",
        ),
        (
            lambda: Distillation(make_teacher(), tasks=("colour",)),
            {},
            r"names the task 'colour', but the teacher has only \['kind', 'size'\]",
        ),
        (
            lambda: Distillation(make_teacher(), tasks=("size",)),
            {},
            "names the task 'size', but the teacher's head is Regression; only logits",
        ),
        (lambda: Distillation(make_teacher(), features=False), {}, "compares nothing; set"),
        (
            lambda: Distillation(make_teacher(), temperature=0.0),
            {},
            "temperature is 0.0; make it positive",
        ),
        (
            lambda: Distillation(make_teacher(sharing=TaskSpecific((3,)), fusion=Concat())),
            {},
            "The teacher has 2 encoders of 'a', since its sharing copies the backbone",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        start(make(), **options)
