"""Functions that make arms: variants of an experiment that run beside it, for comparison."""

import copy

import fiddle as fdl

from mmjax.config.errors import ConfigError


def single_modality(config: fdl.Buildable) -> dict[str, fdl.Buildable]:
    """Returns the experiment as the arm "all", and one arm per modality with its encoder alone.

    Example:
      >>> from mmjax.encoders import MLPEncoder
      >>> from mmjax.experiment import Experiment
      >>> from mmjax.model import Model
      >>> encoders = {"image": fdl.Config(MLPEncoder), "sound": fdl.Config(MLPEncoder)}
      >>> config = fdl.Config(Experiment, model=fdl.Config(Model, encoders=encoders))
      >>> list(single_modality(config))
      ['all', 'image', 'sound']
    """
    return _make_arm_per_module(config, "encoders", "modality")


def single_task(config: fdl.Buildable) -> dict[str, fdl.Buildable]:
    """Returns the experiment as the arm "all", and one arm per task with its head alone."""
    return _make_arm_per_module(config, "heads", "task")


def _make_arm_per_module(config: fdl.Buildable, part: str, unit: str) -> dict[str, fdl.Buildable]:
    modules = getattr(config.model, part)
    if "all" in modules:
        raise ConfigError(
            f"the {unit} name 'all' is reserved for the arm that uses every {unit}; rename it."
        )
    alone = {}
    for name, module in modules.items():
        alone[name] = _replace_modules(config, part, {name: module})
    return {"all": config, **(alone if len(alone) > 1 else {})}


def _replace_modules(config: fdl.Buildable, part: str, modules: dict) -> fdl.Buildable:
    """Copies a configuration with other modules; the rest is shared, so data are built once.

    Weights and patterns that name a module which is left out are left out, too.
    """
    new, model = copy.copy(config), copy.copy(config.model)
    removed = {f"{part}_{name}" for name in set(getattr(model, part)) - set(modules)}
    setattr(model, part, modules)
    new.model = model
    for field in ("init", "lora"):
        if paths := config.__arguments__.get(field):
            kept = {path: x for path, x in paths.items() if path.split("/")[0] not in removed}
            setattr(new, field, kept)
    if patterns := config.__arguments__.get("trainable"):
        new.trainable = tuple(x for x in patterns if x.split("/")[0] not in removed)
    return new
