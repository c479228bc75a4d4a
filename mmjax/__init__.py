"""mmjax: learning from several modalities and several tasks at once, in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmjax.balance import Balancer
    from mmjax.config import auto_config
    from mmjax.data.dataset import Arrays, Dataset, Modality, Task
    from mmjax.experiment import Experiment
    from mmjax.model import Model
    from mmjax.runs.load import load
    from mmjax.runs.trained import Trained
    from mmjax.train.loop import fit
    from mmjax.train.run_arms import run
    from mmjax.train.steps.state import init_state
    from mmjax.train.steps.train_step import make_train_step
    from mmjax.types import Batch, Branches, Intermediates, Seen, Tokens, TrainState

__version__ = "0.1.0"

__all__ = [
    "Arrays",
    "Balancer",
    "Batch",
    "Branches",
    "Dataset",
    "Experiment",
    "Intermediates",
    "Modality",
    "Model",
    "Seen",
    "Task",
    "Tokens",
    "TrainState",
    "Trained",
    "auto_config",
    "fit",
    "init_state",
    "load",
    "make_train_step",
    "run",
]

_HOMES = {
    "mmjax.balance": ("Balancer",),
    "mmjax.config": ("auto_config",),
    "mmjax.data.dataset": ("Arrays", "Dataset", "Modality", "Task"),
    "mmjax.experiment": ("Experiment",),
    "mmjax.model": ("Model",),
    "mmjax.runs.load": ("load",),
    "mmjax.runs.trained": ("Trained",),
    "mmjax.train": ("fit", "init_state", "make_train_step", "run"),
    "mmjax.types": ("Batch", "Branches", "Intermediates", "Seen", "Tokens", "TrainState"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("balance", "config", "data", "experiment", "model", "sharing", "train", "types")


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for, so that `mmjax --help` waits for none of it."""
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
