"""Training: the pure step, its programs over replicas and devices, the loop, checkpoints, reports.

An arm is one configuration of an experiment. A replica is one training inside of a program: an arm
with one seed. The path of a run: `run` -> `fit` -> `Programs.train` -> the scan over steps in
`parallel` -> the replica's step -> `train_step` -> the balancer's and the optimizer's `update`.
"""

from mmjax.train.best_variables import load_best
from mmjax.train.loop import fit
from mmjax.train.run_arms import run
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step

__all__ = ["fit", "init_state", "load_best", "make_eval_step", "make_train_step", "run"]
