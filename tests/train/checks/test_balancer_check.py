"""Balancers that a model cannot use are refused before anything is compiled, and no others."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from optax.experimental import aggregating

from mmjax import auxiliary, balance
from mmjax.cli.request import check_experiments
from mmjax.config import ConfigError
from mmjax.fusion import Late
from mmjax.modalities import imbalance
from mmjax.sharing import TaskSpecific
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step

NO_SHARED = "^balancer: The tasks share no parameters that train, .* balance.equal"
NO_SHARED_FEATURES = '^balancer: wrt="features" needs features that all tasks share'
OF_GRADIENTS = {
    "db_mtl": balance.db_mtl(),
    "excess_mtl": balance.excess_mtl(),
    "from_aggregator": balance.from_aggregator(aggregating.average_per_element_updates(0)),
    "graddrop": balance.graddrop(),
    "moco": balance.moco(),
    "modo": balance.modo(),
    "modulated": imbalance.modulated(balance.graddrop(), imbalance.ogm_ge()),
    "nash": balance.nash(every=3),
    "pcgrad": balance.pcgrad(),
    "sdmgrad": balance.sdmgrad(),
}


def check(toy, model, balancer, **options):
    experiment = toy.experiment(model=model, balancer=balancer, **options)
    check_experiment(experiment, 1)
    return experiment


@pytest.mark.parametrize("name", OF_GRADIENTS)
def test_without_shared_parameters_gradients_cannot_be_balanced(toy, name):
    with pytest.raises(ValueError, match=NO_SHARED):
        check(toy, toy.model(sharing=TaskSpecific()), OF_GRADIENTS[name])


def test_frozen_parameters_cannot_be_balanced(toy):
    balancer = balance.excess_mtl()
    check(toy, toy.model(), balancer, trainable=("heads_*", "sharing/*"))
    with pytest.raises(ValueError, match=NO_SHARED):
        check(toy, toy.model(), balancer, trainable=("heads_*",))


def test_losses_are_balanced_without_shared_parameters(toy):
    model = toy.model(sharing=TaskSpecific())
    for balancer in (balance.equal(), balance.famo(), balance.static({"kind": 1.0, "size": 2.0})):
        check(toy, model, balancer)
    with pytest.raises(ValueError, match=r"^diagnostics=True compares .* set diagnostics=False"):
        check(toy, model, balance.equal(), diagnostics=True)


def test_names_that_do_not_fit_are_refused(toy):
    with pytest.raises(ValueError, match=r"^balancer: static: .* \['kind'\], but the tasks are"):
        check(toy, toy.model(), balance.static({"kind": 1.0}))
    with pytest.raises(ValueError, match=r"^balancer: No shared parameter matches 'fusions/\*'"):
        check(toy, toy.model(), balance.pcgrad(wrt=("fusions/*",)))
    with pytest.raises(ValueError, match=r"^balancer: krum: selected is 3, but there are 2 tasks"):
        check(toy, toy.model(), balance.krum(selected=3))
    with pytest.raises(ValueError, match=r"^batch_size=15 .* times the 2 parts"):
        check(toy, toy.model(), balance.modo(), batch_size=15)


def test_the_errors_of_a_balancer_of_ones_own_say_where_they_are(toy):
    balancer = balance.from_losses(lambda losses, *, key, labeled: losses + jnp.ones(3))
    with pytest.raises(ValueError, match=r"^balancer: it cannot be used with the model's losses"):
        check(toy, toy.model(), balancer)


# What the step itself raises when it is traced is the truth.
@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, True),
        ({"fusion": Late(4)}, True),
        ({"sharing": TaskSpecific()}, False),
        ({"auxiliary": {"a": auxiliary.InfoNCE()}}, False),
    ],
)
def test_shared_features_are_told_from_others_as_in_the_step(toy, options, fits):
    model, balancer = toy.model(**options), balance.mgda(wrt="features")
    parts, batch = (model, optax.sgd(0.1), balancer), toy.batch(8, 0)
    state = jax.eval_shape(lambda key: init_state(*parts, batch, key), jax.random.key(0))
    if fits:
        check(toy, model, balancer)
        jax.eval_shape(make_train_step(*parts), state, batch)
        return
    with pytest.raises(ValueError, match=NO_SHARED_FEATURES):
        check(toy, model, balancer)
    with pytest.raises(ValueError, match=NO_SHARED_FEATURES.removeprefix("^balancer: ")):
        jax.eval_shape(make_train_step(*parts), state, batch)


def test_of_several_arms_the_message_names_the_one(toy):
    good = toy.experiment(balancer=balance.excess_mtl())
    bad = dataclasses.replace(good, model=toy.model(sharing=TaskSpecific()))
    arms = {"shared": lambda: good, "separate": lambda: bad}
    with pytest.raises(ConfigError, match=r"^arm separate: balancer: The tasks share no"):
        check_experiments(arms, 1)
