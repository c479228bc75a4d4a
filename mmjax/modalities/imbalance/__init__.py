"""Methods against the imbalance of modalities: one learns fast, and the others stay behind."""

from mmjax.modalities.imbalance.modulation.agm import agm
from mmjax.modalities.imbalance.modulation.modulated import Modulation, modulated
from mmjax.modalities.imbalance.modulation.ogm_ge import ogm_ge
from mmjax.modalities.imbalance.modulation.opm import opm

__all__ = ["Modulation", "agm", "modulated", "ogm_ge", "opm"]
