"""Studies whether specialized multi-task optimizers beat equal weights if all are tuned alike.

    mmjax data prepare multi_mnist
    mmjax ablate experiments/equal_weights.py --workdir runs/equal_weights
    mmjax report runs/equal_weights

Claim 9 (Kurin et al., NeurIPS 2022): equal weights tie with specialized multi-task optimizers.
LeNet on MultiMNIST as in `multi_mnist.py`, for 3 epochs; the learning rate of every arm is the best
of 3 on the validation split, then five fresh seeds are trained. Published mean test accuracy of
both tasks: equal 0.9476 ± 0.0044, all others within 0.013 of it.

Expected: no method is significantly better than equal weights.

Measured mean test accuracy, five seeds, and difference to equal weights (95% intervals, paired
t-tests), in 29 minutes on one core beside another study:

    equal          0.9546 ± 0.0060
    random         0.9541 ± 0.0064    -0.0005 ± 0.0021    p = 0.56
    uncertainty    0.9595 ± 0.0026     0.0049 ± 0.0076    p = 0.15
    imtl-l         0.9590 ± 0.0054     0.0044 ± 0.0085    p = 0.22
    mgda           0.9545 ± 0.0047    -0.0001 ± 0.0016    p = 0.88
    pcgrad         0.9558 ± 0.0055     0.0012 ± 0.0026    p = 0.29
    graddrop       0.9557 ± 0.0034     0.0011 ± 0.0030    p = 0.38
    cagrad         0.9566 ± 0.0028     0.0020 ± 0.0035    p = 0.18

With Holm's correction every p is 1, and Friedman's test finds no difference among the eight
(p = 0.15): the claim holds here. Five seeds would not show gains as small as those of uncertainty
and imtl-l, 0.5 and 0.4 points. The search chose the learning rate 0.0041, the largest of the three,
for every arm.
"""

import multi_mnist

from mmjax.config import auto_config
from mmjax.experiment import Experiment
from mmjax.study import Study
from mmjax.study.search_space import LogUniform
from mmjax.study.study import Tuning

BALANCERS = {
    "equal": "equal()",
    "random": "rlw()",
    "uncertainty": "uncertainty(optax.adam(1e-2))",
    "imtl-l": "imtl_l(optax.adam(1e-2))",
    "mgda": "mgda()",
    "pcgrad": "pcgrad()",
    "graddrop": "graddrop()",
    "cagrad": "cagrad()",
}


@auto_config
def experiment() -> Experiment:
    """Returns the experiment of `multi_mnist.py` with fewer epochs."""
    return multi_mnist.experiment(epochs=3)


STUDY = Study(
    base=experiment,
    axes={"balancer": {name: {"balancer": call} for name, call in BALANCERS.items()}},
    metric="mean/accuracy",
    vmapped=("optimizer.learning_rate",),
    tuning=Tuning(trials=3, space={"optimizer.learning_rate": LogUniform(5e-4, 5e-3)}),
)
