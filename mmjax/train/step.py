"""Deprecated alias of `mmjax.train.steps`; the next release removes it."""

from mmjax.deprecation import forward_names

__getattr__ = forward_names(
    __name__,
    {
        "init_state": "mmjax.train.steps.state:init_state",
        "make_eval_step": "mmjax.train.steps.eval_step:make_eval_step",
        "make_train_step": "mmjax.train.steps.train_step:make_train_step",
    },
)
