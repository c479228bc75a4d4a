"""Training: the pure step, its lifts, the loop, checkpoints, reports."""

from mmjax.train.eval_step import make_eval_step
from mmjax.train.loop import fit
from mmjax.train.run_arms import load_best, run
from mmjax.train.step import make_train_step

__all__ = ["fit", "load_best", "make_eval_step", "make_train_step", "run"]
