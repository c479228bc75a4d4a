"""Fusions: the tokens of all modalities become one vector per example.

A fusion is a Flax module with the call of `mmjax.protocols.Fusion`:
({modality: Tokens [b n d_m]}, *, train) -> Float[b d], or `Branches`. A modality that an example
lacks has no unmasked token and must have no effect.
"""

from mmjax.fusion.action_mae import ActionMAE
from mmjax.fusion.attention import AttentionPool
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.concat import Concat
from mmjax.fusion.elementwise import Max, Mean, Sum
from mmjax.fusion.embrace import Embrace
from mmjax.fusion.film import FiLM
from mmjax.fusion.gated import Gated
from mmjax.fusion.hide import Hide
from mmjax.fusion.late import Late
from mmjax.fusion.multi_mod_n import MultiModN
from mmjax.fusion.multiplicative import Multiplicative
from mmjax.fusion.pattern_experts import PatternExperts
from mmjax.fusion.perceiver import HEALNet, Perceiver
from mmjax.fusion.pooling import pool
from mmjax.fusion.product_of_experts import ProductOfExperts
from mmjax.fusion.prompted import Prompted
from mmjax.fusion.sha_spec import ShaSpec
from mmjax.fusion.tensor import LowRankTensor, Tensor
from mmjax.fusion.transformer import CrossModal, EarlyTransformer

__all__ = [
    "ActionMAE",
    "AttentionPool",
    "Bottleneck",
    "Concat",
    "CrossModal",
    "EarlyTransformer",
    "Embrace",
    "FiLM",
    "Gated",
    "HEALNet",
    "Hide",
    "Late",
    "LowRankTensor",
    "Max",
    "Mean",
    "MultiModN",
    "Multiplicative",
    "PatternExperts",
    "Perceiver",
    "ProductOfExperts",
    "Prompted",
    "ShaSpec",
    "Sum",
    "Tensor",
    "pool",
]
