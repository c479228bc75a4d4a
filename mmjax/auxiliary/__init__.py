"""Auxiliary objectives: losses of a model's intermediate values, in addition to the tasks' losses.

`Model(auxiliary={name: objective})` trains with them as if they were tasks: the balancer weighs
them, and the log has `loss/NAME` and `weight/NAME`. An objective is any callable, a Flax module if
it has parameters, with the call of `mmjax.protocols.Objective`:

    objective(seen, predictions, batch, *, train, gather) -> (total, count)

in float32, for this device's part of the batch; the loss is the sum of the totals over the sum of
the counts of all devices. `seen` is a `mmjax.types.Intermediates`; `predictions` are those of the
heads; `batch` has zeros for everything that is missing; `gather(x)` is x [b, ...] of all devices.
An objective that needs the whole batch gathers it, and returns (loss, 1) on each device. Without
any example to learn from, it returns (0, 0). An objective of certain tasks may have the class
attributes `needs_kinds`, their kinds, and `needs_head`, the type of their heads, and an attribute
`classes`, the number of their classes: experiments with others are refused. Tasks do not share the
parameters of objectives, so gradient balancers do not change their gradients.
"""

from mmjax.auxiliary.branches import BranchLosses, ConfidenceRanking, rank_confidences
from mmjax.auxiliary.contrastive import InfoNCE, info_nce, mix_neighbors
from mmjax.auxiliary.correlation import DeepCCA, cca
from mmjax.auxiliary.covariance import CORAL, coral_distance
from mmjax.auxiliary.decoding import Decoders, MLPDecoder, negative_log_likelihood
from mmjax.auxiliary.dirichlet import DirichletKL, dirichlet_kl
from mmjax.auxiliary.discrepancy import MMD, mmd, mmd_to_normal
from mmjax.auxiliary.distillation import Distillation, Teacher, prediction_distance
from mmjax.auxiliary.elbo import ELBO, gaussian_kl
from mmjax.auxiliary.margin_distillation import MarginDistillation, relation_distance
from mmjax.auxiliary.mfm import MFM
from mmjax.auxiliary.reconstruction import Reconstruction
from mmjax.auxiliary.refnet import RefNet, cosine_distance
from mmjax.auxiliary.sha_spec import ShaSpecLosses
from mmjax.auxiliary.sown import Sown

__all__ = [
    "CORAL",
    "ELBO",
    "MFM",
    "MMD",
    "BranchLosses",
    "ConfidenceRanking",
    "Decoders",
    "DeepCCA",
    "DirichletKL",
    "Distillation",
    "InfoNCE",
    "MLPDecoder",
    "MarginDistillation",
    "Reconstruction",
    "RefNet",
    "ShaSpecLosses",
    "Sown",
    "Teacher",
    "cca",
    "coral_distance",
    "cosine_distance",
    "dirichlet_kl",
    "gaussian_kl",
    "info_nce",
    "mix_neighbors",
    "mmd",
    "mmd_to_normal",
    "negative_log_likelihood",
    "prediction_distance",
    "rank_confidences",
    "relation_distance",
]
