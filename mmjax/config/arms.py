"""Arms: the variants of an experiment that run beside it, for comparison."""

import copy

import fiddle as fdl

from mmjax.config.errors import ConfigError


def single_modality(config: fdl.Buildable) -> dict[str, fdl.Buildable]:
    """The experiment as it is, under "all", and once with each of its encoders alone."""
    encoders = config.model.encoders
    if "all" in encoders:
        raise ConfigError("a modality is called 'all', which is the name of the arm with all.")
    alone = {m: _with_encoders(config, {m: e}) for m, e in encoders.items()}
    return {"all": config, **(alone if len(alone) > 1 else {})}


def _with_encoders(config: fdl.Buildable, encoders: dict) -> fdl.Buildable:
    """A copy that shares all but the model, so that its data are made once."""
    new, model = copy.copy(config), copy.copy(config.model)
    model.encoders = encoders
    new.model = model
    return new
