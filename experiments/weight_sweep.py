"""Does a sweep of fixed weights trace the front that multi-task optimizers land on?

    mmjax data prepare multi_mnist
    mmjax ablate experiments/weight_sweep.py --workdir runs/weight_sweep
    mmjax report runs/weight_sweep

Claim 10 (Xin et al., NeurIPS 2022): it does, and optimizers give no point beyond it. LeNet on
MultiMNIST as in `multi_mnist.py`, for 3 epochs; seven pairs of weights whose sum is 2, all of them
with all seeds as one program, and four optimizers.

Expected: accuracies of left and right trade off along the sweep, and every optimizer lies on the
sweep's front or behind it.

Not measured yet.
"""

import multi_mnist

from mmjax.ablate import Study
from mmjax.config import auto_config
from mmjax.experiment import Experiment

SWEEP = {
    f"left {left:.1f}": {"balancer": f"static({{'left': {left:.1f}, 'right': {2 - left:.1f}}})"}
    for left in (1.0, 0.1, 0.4, 0.7, 1.3, 1.6, 1.9)
}
OPTIMIZERS = {name: {"balancer": f"{name}()"} for name in ("mgda", "pcgrad", "cagrad", "nash")}


@auto_config
def experiment() -> Experiment:
    """That of `multi_mnist.py`, shorter."""
    return multi_mnist.experiment(epochs=3)


STUDY = Study(
    base=experiment,
    axes={"weights": SWEEP | OPTIMIZERS},
    metric="mean/accuracy",
    vmapped=("balancer.weights.left", "balancer.weights.right"),
)
