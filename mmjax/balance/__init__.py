"""Balancers: weightings by losses and balancing by gradients, under one protocol.

Every name below but `Balancer`, the `from_...` and the `to_...` is a factory that returns a
`Balancer`. Its folder says what the method needs: `losses`, the `gramian` of the tasks' gradients,
or their `jacobian`.
"""

from mmjax.balance.base import Balancer
from mmjax.balance.from_functions import from_gram, from_jacobian, from_losses, from_stateful_gram
from mmjax.balance.gramian.aligned import aligned
from mmjax.balance.gramian.cagrad import cagrad
from mmjax.balance.gramian.conflict_free import conflict_free
from mmjax.balance.gramian.gradnorm import gradnorm
from mmjax.balance.gramian.gradvac import gradvac
from mmjax.balance.gramian.imtl_g import imtl_g
from mmjax.balance.gramian.mgda import mgda
from mmjax.balance.gramian.nash import fairgrad, nash
from mmjax.balance.gramian.pcgrad import pcgrad
from mmjax.balance.gramian.robust import krum, trimmed_mean
from mmjax.balance.gramian.upgrad import dualproj, upgrad
from mmjax.balance.jacobian.db_mtl import db_mtl
from mmjax.balance.jacobian.double_sampling import modo, sdmgrad
from mmjax.balance.jacobian.excess_mtl import excess_mtl
from mmjax.balance.jacobian.graddrop import graddrop
from mmjax.balance.jacobian.moco import moco
from mmjax.balance.losses.dwa import dwa
from mmjax.balance.losses.famo import famo
from mmjax.balance.losses.learned_weights import imtl_l, uncertainty
from mmjax.balance.losses.preference import cosmos, pbi
from mmjax.balance.losses.rlw import rlw
from mmjax.balance.losses.stateless import equal, geometric, scale_invariant, static
from mmjax.balance.losses.stch import log_stch, stch
from mmjax.balance.optax_adapter import from_aggregator, to_aggregator

__all__ = [
    "Balancer",
    "aligned",
    "cagrad",
    "conflict_free",
    "cosmos",
    "db_mtl",
    "dualproj",
    "dwa",
    "equal",
    "excess_mtl",
    "fairgrad",
    "famo",
    "from_aggregator",
    "from_gram",
    "from_jacobian",
    "from_losses",
    "from_stateful_gram",
    "geometric",
    "graddrop",
    "gradnorm",
    "gradvac",
    "imtl_g",
    "imtl_l",
    "krum",
    "log_stch",
    "mgda",
    "moco",
    "modo",
    "nash",
    "pbi",
    "pcgrad",
    "rlw",
    "scale_invariant",
    "sdmgrad",
    "static",
    "stch",
    "to_aggregator",
    "trimmed_mean",
    "uncertainty",
    "upgrad",
]
