"""mmjax: learning from several modalities and several tasks at once, in JAX and Flax."""

from mmjax.balance import Balancer
from mmjax.config import auto_config
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.experiment import Experiment
from mmjax.model import Model
from mmjax.train import fit, make_train_step, run
from mmjax.types import Batch, Branches, Seen, Tokens, TrainState

__version__ = "0.1.0"

__all__ = [
    "Arrays",
    "Balancer",
    "Batch",
    "Branches",
    "Dataset",
    "Experiment",
    "Modality",
    "Model",
    "Seen",
    "Task",
    "Tokens",
    "TrainState",
    "auto_config",
    "fit",
    "make_train_step",
    "run",
]
