"""Do specialised optimizers beat equal weights, if all are tuned alike?

    mmjax data prepare multi_mnist
    mmjax ablate experiments/equal_weights.py --workdir runs/equal_weights
    mmjax report runs/equal_weights

Claim 9 (Kurin et al., NeurIPS 2022): equal weights tie specialised multi-task optimizers. LeNet on
MultiMNIST as in `multi_mnist.py`, for 3 epochs; the learning rate of every arm is the best of 3
on the validation split, then five fresh seeds are trained. Published mean test accuracy of both
tasks: equal 0.9476 ± 0.0044, all others within 0.013 of it.

Expected: no method is significantly better than equal weights.

Not measured yet.
"""

import multi_mnist

from mmjax.ablate import Study
from mmjax.ablate.space import LogUniform
from mmjax.ablate.study import Tuning
from mmjax.config import auto_config
from mmjax.experiment import Experiment

BALANCERS = {
    "equal": "equal()",
    "random": "random()",
    "uncertainty": "uncertainty(optax.adam(1e-2))",
    "imtl-l": "imtl_l(optax.adam(1e-2))",
    "mgda": "mgda()",
    "pcgrad": "pcgrad()",
    "graddrop": "graddrop()",
    "cagrad": "cagrad()",
}


@auto_config
def experiment() -> Experiment:
    """That of `multi_mnist.py`, shorter."""
    return multi_mnist.experiment(epochs=3)


STUDY = Study(
    base=experiment,
    axes={"balancer": {name: {"balancer": call} for name, call in BALANCERS.items()}},
    metric="mean/accuracy",
    vmapped=("optimizer.learning_rate",),
    tuning=Tuning(trials=3, space={"optimizer.learning_rate": LogUniform(5e-4, 5e-3)}),
)
