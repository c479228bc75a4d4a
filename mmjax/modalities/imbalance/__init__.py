"""Methods against the imbalance of modalities: one learns fast, and the others stay behind.

- Modulations of the encoders' gradients, for `modulated(balancer, method)`: `ogm_ge`, `agm`,
  `cggm`.
- `opm(balancer)` and `amco(balancer)` drop features of the modality that is ahead, and
  `info_reg(balancer)` draws its encoder back; `relearn(balancer)` resets encoders that memorize, by
  `ClusterImpurity`.
- Auxiliary objectives: `UnimodalLoss`, `ConfidenceOrder` (CML), `ModalityValuation` (sample-level
  valuation), `PrototypeRebalance` (PMR), `ResidualBoosting` (ReconBoost), `GradientDirection`
  (CGGM).
- Balancers of tasks' and unimodal losses: `gradient_blend`, `mmpareto`, `mla`, `reconboost`, `ume`.

All take any number of modalities and tasks; missing modalities and labels take no part.
"""

from mmjax.modalities.imbalance.balancers.alternation import (
    average_by_entropy,
    mla,
    reconboost,
    ume,
)
from mmjax.modalities.imbalance.balancers.gradient_blend import (
    compute_blend_weights,
    gradient_blend,
)
from mmjax.modalities.imbalance.balancers.info_reg import info_reg
from mmjax.modalities.imbalance.balancers.mmpareto import mmpareto
from mmjax.modalities.imbalance.balancers.relearning import relearn
from mmjax.modalities.imbalance.modulation.agm import agm
from mmjax.modalities.imbalance.modulation.amco import amco
from mmjax.modalities.imbalance.modulation.cggm import cggm
from mmjax.modalities.imbalance.modulation.modulated import Modulation, modulated
from mmjax.modalities.imbalance.modulation.ogm_ge import ogm_ge
from mmjax.modalities.imbalance.modulation.opm import opm
from mmjax.modalities.imbalance.objectives.cluster_impurity import ClusterImpurity
from mmjax.modalities.imbalance.objectives.confidence_order import ConfidenceOrder
from mmjax.modalities.imbalance.objectives.gradient_direction import GradientDirection
from mmjax.modalities.imbalance.objectives.modality_valuation import ModalityValuation
from mmjax.modalities.imbalance.objectives.prototypes import PrototypeRebalance
from mmjax.modalities.imbalance.objectives.residual_boosting import ResidualBoosting
from mmjax.modalities.imbalance.objectives.unimodal_loss import UnimodalLoss

__all__ = [
    "ClusterImpurity",
    "ConfidenceOrder",
    "GradientDirection",
    "ModalityValuation",
    "Modulation",
    "PrototypeRebalance",
    "ResidualBoosting",
    "UnimodalLoss",
    "agm",
    "amco",
    "average_by_entropy",
    "cggm",
    "compute_blend_weights",
    "gradient_blend",
    "info_reg",
    "mla",
    "mmpareto",
    "modulated",
    "ogm_ge",
    "opm",
    "reconboost",
    "relearn",
    "ume",
]
