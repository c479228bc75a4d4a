"""Every optimizer of optax trains a step, or is refused with what it needs and what to use."""

import dataclasses
import inspect
import logging

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from mmjax import balance, metrics
from mmjax.data.dataset import Arrays
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.optim import per_path
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.checks.optimizer_check import check_optimizer
from mmjax.train.loop import fit
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_optimizer_update, make_train_step

SGD = optax.sgd(0.1)
PARAMS = {"a": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "b": {"kernel": jnp.ones((4, 2))}}


def keep(updates, *_):
    return updates


# Arguments of what needs others than numbers.
ARGUMENTS = {
    "add_noise": (0.1, 0.5, 0),
    "apply_if_finite": (SGD, 3),
    "chain": (SGD, optax.clip(1.0)),
    "conditionally_mask": (SGD, lambda count: count > 0),
    "conditionally_transform": (SGD, lambda count: count > 0),
    "differentially_private_aggregate": (1.0, 1.0, 0),
    "dpsgd": (0.1, 1.0, 1.0, 0),
    "flatten": (SGD,),
    "freeze": (False,),
    "lookahead": (SGD, 5, 0.5),
    "masked": (SGD, True),
    "measure_with_ema": (keep, 0.9),
    "mechanize": (SGD,),
    "multi_transform": ({"x": SGD}, "x"),
    "named_chain": (("x", SGD),),
    "partition": ({"x": SGD}, "x"),
    "sam": (SGD, optax.sgd(0.01)),
    "scale_by_schedule": (lambda count: 0.1,),
    "schedule_free": (SGD, 0.1),
    "snapshot": ("x", keep),
    "split_real_and_imaginary": (SGD,),
    "stateless": (keep,),
    "stateless_with_tree_map": (lambda update, param: update,),
    "with_extra_args_support": (SGD,),
}
# Functions of an optimizer's maker, which return no optimizer.
MAKERS = {
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.1),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(optax.adam)(0.1),
    "selective_transform": lambda: optax.selective_transform(
        SGD, freeze_mask=jax.tree.map(lambda _: False, PARAMS)
    ),
}
REFUSED = {
    "lbfgs": r"line search.*value_fn.*optax\.lbfgs\(1e-2, linesearch=None\)",
    "scale_by_backtracking_linesearch": "line search",
    "scale_by_zoom_linesearch": "line search",
    "lookahead": r"optax\.lookahead keeps two trees.*Experiment\(ema=0\.99\)",
    "sophia": r"optax\.contrib\.sophia needs.*obj_fn.*Use another optimizer",
    "dpsgd": r"optax\.contrib\.dpsgd.*gradient of each example",
    "differentially_private_aggregate": "gradient of each example",
    # For trees of matrices only; `muon` treats the other parameters itself.
    "scale_by_muon": "it cannot update by",
}


def list_optimizers():
    """Returns {name: function} of all functions of optax that return an optimizer."""
    found = {"MultiSteps": lambda: optax.MultiSteps(SGD, 2)}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if name.startswith("_") or not inspect.isfunction(inspect.unwrap(function)):
                continue
            returns = str(inspect.signature(function).return_annotation)
            if "GradientTransformation" in returns or name in ("dog", "dowg"):
                found[name] = function
    return found


OPTIMIZERS = list_optimizers()


def make_optimizer(name):
    if name in MAKERS:
        return MAKERS[name]()
    function = OPTIMIZERS[name]
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
    return function(*ARGUMENTS.get(name, (0.1,) * len(needed)))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_all_optimizers_are_taken_or_refused_by_name():
    assert len(OPTIMIZERS) > 110  # 125 in optax 0.2.8
    logging.getLogger("absl").setLevel(logging.ERROR)
    with jax.numpy_rank_promotion("allow"):  # optax's own
        for name in OPTIMIZERS:
            if reason := REFUSED.get(name):
                with pytest.raises(ValueError, match=f"^optimizer: .*{reason}"):
                    check_optimizer(make_optimizer(name), PARAMS)
            else:
                check_optimizer(make_optimizer(name), PARAMS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_all_others_update_by_what_a_step_gives_them():
    gradient, loss = jax.tree.map(lambda x: 0.1 * x, PARAMS), jnp.ones(())
    for name in sorted(OPTIMIZERS.keys() - REFUSED.keys()):
        optimizer = make_optimizer(name)
        update = make_optimizer_update(optimizer)

        def step(params, optimizer=optimizer, update=update):
            updates, _ = update(gradient, optimizer.init(params), params, loss)
            return optax.apply_updates(params, updates)

        with jax.numpy_rank_promotion("allow"):
            new = jax.jit(step)(PARAMS)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(new)), name
        chex.assert_trees_all_equal_shapes_and_dtypes(new, PARAMS)


def test_a_refused_optimizer_is_found_in_others():
    nested = per_path({"a/*": SGD, "b/*": optax.chain(optax.clip(1.0), optax.lbfgs())})
    with pytest.raises(ValueError, match=r"^optimizer: it has a line search"):
        check_optimizer(nested, PARAMS)
    check_optimizer(optax.lbfgs(1e-2, linesearch=None), PARAMS)


def test_an_optimizer_that_fails_is_refused_with_its_reason():
    def update(updates, state, params, *, temperature):
        return updates, state

    needy = optax.GradientTransformationExtraArgs(lambda params: (), update)
    with pytest.raises(ValueError, match=r"^optimizer: it cannot update by .*'temperature'"):
        check_optimizer(needy, PARAMS)
    shorter = optax.stateless(lambda updates, params: updates["a"])
    with pytest.raises(ValueError, match=r"^optimizer: it cannot update by"):
        check_optimizer(shorter, PARAMS)
    with pytest.raises(ValueError, match=r"^optimizer: The patterns of per_path, a/\*, do not"):
        check_optimizer(per_path({"a/*": SGD}), PARAMS)


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (optax.clip_by_global_norm(10**26), "overflow"),  # an integer beyond 64 bits
        (optax.adam(1e-3, b1=2**32), "overflow"),
        (optax.sgd(MLPEncoder((4,))), "module"),  # called as a schedule
    ],
)
def test_arguments_that_no_step_can_use_are_refused(optimizer, reason):
    with pytest.raises(ValueError, match=rf"^optimizer: it cannot update by .*{reason}"):
        check_optimizer(optimizer, PARAMS)


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (1e-3, r"optimizer is 0\.001, .*such as optax\.adam\(0\.001\)"),
        (optax.adam, r"call it, as in optax\.adam\(1e-3\)"),
        ("adam", r"pass one, such as optax\.adam\(1e-3\)"),
    ],
)
def test_what_is_not_an_optimizer_is_refused(toy, monkeypatch, value, fix):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    experiment = toy.experiment()
    with pytest.raises(ValueError, match=fix):
        dataclasses.replace(experiment, optimizer=value)


class Read:
    """A source that is read while training."""

    def __init__(self, source):
        self.take, self.length = source.take, len(source)

    def __len__(self):
        return self.length


ACCUMULATION = {"optimizer": optax.MultiSteps(SGD, 2), "epochs": 1}
UNEQUAL = r"optax\.MultiSteps gives .* no label of task .*multiply batch_size"


def test_accumulation_under_missing_labels_is_refused(toy):
    with pytest.raises(ValueError, match=UNEQUAL):
        check_experiment(toy.experiment(**ACCUMULATION), 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_accumulation_under_weights_is_refused(toy, streamed):
    data = toy.dataset()
    train = data.splits["train"].batch
    labeled = {task: np.ones(train.size, bool) for task in train.labeled}
    train = Arrays(train._replace(labeled=labeled))
    splits = data.splits | {"train": Read(train) if streamed else train}
    heads = toy.model().heads
    heads = {**heads, "kind": Classification(4, class_weights=(1.0, 2.0, 1.0, 1.0))}
    experiment = toy.experiment(
        data=dataclasses.replace(data, splits=splits),
        model=toy.model().clone(heads=heads),
        **ACCUMULATION,
    )
    with pytest.raises(ValueError, match=r"MultiSteps gives .* labels of task 'kind' have weights"):
        check_experiment(experiment, 1)


@pytest.mark.slow
def test_missing_labels_of_data_that_are_read_while_training_are_refused(toy, tmp_path):
    data = toy.dataset()
    read = data.splits | {"train": Read(data.splits["train"])}
    experiment = toy.experiment(data=dataclasses.replace(data, splits=read), **ACCUMULATION)
    with pytest.raises(ValueError, match=UNEQUAL):
        fit(experiment, tmp_path, devices=jax.devices()[:1])


def test_accumulation_with_all_labels_is_the_large_batch(toy):
    """Two steps of 8 examples and one of 16, as the refusal says."""
    model = Model({"vector": MLPEncoder((4,))}, Concat(), {"kind": Classification(4)})
    batch = toy.batch(16, 0)
    batch.labeled["kind"][:] = True
    batch = jax.tree.map(jnp.asarray, batch)
    halves = [jax.tree.map(lambda x, i=i: x[8 * i : 8 * i + 8], batch) for i in range(2)]
    found = []
    for optimizer, batches in ((optax.MultiSteps(SGD, 2), halves), (SGD, [batch])):
        parts = model, optimizer, balance.equal()
        state, step = init_state(*parts, batch, jax.random.key(0)), jax.jit(make_train_step(*parts))
        for one in batches:
            state, _ = step(state, one)
        found.append(state.params)
    chex.assert_trees_all_close(*found, atol=1e-6)


def change_validation(toy, change):
    data = toy.dataset()
    batch = change(data.splits["validation"].batch)
    return dataclasses.replace(data, splits=data.splits | {"validation": Arrays(batch)})


def make_monitored(toy, data, monitor):
    heads = {
        "kind": Classification(4, extra_metrics={"auroc": metrics.auroc}),
        "size": Regression(mean=1.5, scale=1.1),
    }
    model = toy.model().clone(heads=heads)
    return toy.experiment(data=data, model=model, monitor=monitor)


@pytest.mark.parametrize("monitor", ["loss", "kind/auroc", "size/r2", "kind/accuracy"])
def test_a_monitor_without_labels_is_refused_by_task(toy, monitor):
    data = change_validation(
        toy, lambda b: b._replace(labeled={**b.labeled, "size": np.zeros(b.size, bool)})
    )
    experiment = make_monitored(toy, data, monitor)
    if monitor.startswith("kind"):
        return check_experiment(experiment, 1)
    with pytest.raises(ValueError, match=f"monitor '{monitor}' .* of task 'size'.*of 'kind'"):
        check_experiment(experiment, 1)


@pytest.mark.parametrize("monitor", ["kind/auroc", "size/r2"])
def test_a_monitor_that_is_nan_for_equal_labels_is_refused(toy, monitor):
    data = change_validation(
        toy, lambda b: b._replace(targets={t: np.ones_like(y) for t, y in b.targets.items()})
    )
    with pytest.raises(ValueError, match=f"monitor '{monitor}' cannot be computed from the labels"):
        check_experiment(make_monitored(toy, data, monitor), 1)
    check_experiment(make_monitored(toy, toy.dataset(), monitor), 1)
    check_experiment(make_monitored(toy, data, "kind/accuracy"), 1)
