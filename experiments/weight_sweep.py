"""Studies whether a sweep of fixed weights traces the front that multi-task optimizers land on.

    mmjax data prepare multi_mnist
    mmjax ablate experiments/weight_sweep.py --workdir runs/weight_sweep
    mmjax report runs/weight_sweep

Claim 10 (Xin et al., NeurIPS 2022): it does, and optimizers give no point beyond it. LeNet on
MultiMNIST as in `multi_mnist.py`, for 3 epochs; seven pairs of weights whose sum is 2, all of them
with all seeds as one program, and four optimizers.

Expected: the accuracies of left and right trade off along the sweep, and every optimizer lies on
the front of the sweep or behind it.

Measured test accuracy, five seeds, mean and 95% interval; the eleven arms took 24 minutes on one
core beside another study:

    left weight    left               right              mean of both
    0.1            0.840 ± 0.025      0.937 ± 0.003      0.888 ± 0.013
    0.4            0.914 ± 0.008      0.933 ± 0.002      0.923 ± 0.005
    0.7            0.931 ± 0.005      0.929 ± 0.003      0.930 ± 0.002
    1.0            0.939 ± 0.007      0.923 ± 0.003      0.931 ± 0.004
    1.3            0.944 ± 0.006      0.914 ± 0.002      0.929 ± 0.003
    1.6            0.946 ± 0.006      0.893 ± 0.007      0.920 ± 0.006
    1.9            0.950 ± 0.004      0.825 ± 0.019      0.888 ± 0.011
    mgda           0.940 ± 0.006      0.921 ± 0.003      0.930 ± 0.003
    pcgrad         0.938 ± 0.005      0.922 ± 0.003      0.930 ± 0.002
    cagrad         0.940 ± 0.007      0.922 ± 0.005      0.931 ± 0.003
    nash           0.942 ± 0.007      0.924 ± 0.005      0.933 ± 0.004

The sweep is a front: each step of the weight trades one task's accuracy for the other's. All four
optimizers lie in its middle and none is significantly better there: nash, the best one, gains
0.2 ± 0.2 points of mean accuracy on equal weights (paired t-test, p = 0.05; 0.31 with Holm's
correction).
"""

import multi_mnist

from mmjax.config import auto_config
from mmjax.experiment import Experiment
from mmjax.study import Study

SWEEP = {
    f"left {left:.1f}": {"balancer": f"static({{'left': {left:.1f}, 'right': {2 - left:.1f}}})"}
    for left in (1.0, 0.1, 0.4, 0.7, 1.3, 1.6, 1.9)
}
OPTIMIZERS = {name: {"balancer": f"{name}()"} for name in ("mgda", "pcgrad", "cagrad", "nash")}


@auto_config
def experiment() -> Experiment:
    """Returns the experiment of `multi_mnist.py` with fewer epochs."""
    return multi_mnist.experiment(epochs=3)


STUDY = Study(
    base=experiment,
    axes={"weights": SWEEP | OPTIMIZERS},
    metric="mean/accuracy",
    vmapped=("balancer.weights.left", "balancer.weights.right"),
)
