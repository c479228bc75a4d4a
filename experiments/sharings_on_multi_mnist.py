"""Compares every way to share between two tasks on MultiMNIST: accuracy and cost.

    mmjax data prepare multi_mnist
    mmjax ablate experiments/sharings_on_multi_mnist.py --workdir runs/sharings_on_multi_mnist
    mmjax report runs/sharings_on_multi_mnist

The LeNet of `multi_mnist.py`, for 4 epochs instead of 6; nine sharings, five seeds each as one
program, beside each task alone. LeNet's fused vector has 50 entries and nearly all parameters lie
before it, so every sharing that can mixes copies of the whole LeNet (`backbones=True`), without
further layers: two copies, as many as there are tasks, so that the network is as large as two
single ones and no larger. CGC needs three, one shared and one per task. PLE and MTAN work on the
fused vector: PLE with two levels of one shared expert and one per task, MTAN with one block, each
of width 50.

Expected: hard sharing loses about a point to the single tasks (`multi_mnist.py`), task-specific is
the single tasks in one program and ties with them, and the others lie between or a little above, at
about twice the cost.

Measured (`results/sharings_on_multi_mnist.md`; 45 minutes on one core): Δm against the single tasks
is -1.3 ± 0.4% for hard sharing, -0.4 ± 0.5 task-specific, 0.0 ± 0.3 cross-stitch, -0.2 ± 0.3
DSelect-k, -0.6 ± 0.4 CGC and -0.9 ± 0.5 MMoE. Only cross-stitch is significantly better than hard
sharing on both tasks (paired t-tests with Holm's correction). Three are below hard sharing: LTB
(-1.9 ± 0.5), and PLE and MTAN (-2.6 ± 0.6 and -2.6 ± 1.2), whose further layers of 50 come after a
vector of 50; of these only PLE is significantly worse, on both tasks.
"""

import multi_mnist

from mmjax.config import auto_config
from mmjax.experiment import Experiment
from mmjax.study import Study

SHARINGS = {
    "hard": "HardSharing()",
    "task-specific": "TaskSpecific()",
    "cross-stitch": "CrossStitch(backbones=True)",
    "mmoe": "MMoE(experts=2, backbones=True)",
    "cgc": "CGC(shared=1, own=1, backbones=True)",
    "ple": "PLE(levels=2, shared=1, own=1, features=(50,))",
    "dselect-k": "DSelectK(experts=2, k=1, backbones=True)",
    "mtan": "MTAN(features=(50,))",
    "ltb": "LTB(nodes=2, backbones=True)",
}


@auto_config
def experiment() -> Experiment:
    """Returns the experiment of `multi_mnist.py` with fewer epochs."""
    return multi_mnist.experiment(epochs=4)


STUDY = Study(
    base=experiment,
    axes={"sharing": {name: {"model.sharing": call} for name, call in SHARINGS.items()}},
    metric="left/accuracy",
    single_task=True,
)
