"""Sharings: from one fused representation, or copies of the whole backbone, to features per task.

A sharing is a Flax module with the call of `mmjax.protocols.Sharing`:
(x [b d] or `Copies`, tasks, *, train) -> {task: [b e]}. Parameters whose name begins with own_
belong to one task, so gradient balancers leave them alone.
"""

from mmjax.sharing.cgc import CGC
from mmjax.sharing.copies import Copies, copied
from mmjax.sharing.cross_stitch import CrossStitch
from mmjax.sharing.dselect_k import DSelectK
from mmjax.sharing.hard import HardSharing
from mmjax.sharing.ltb import LTB
from mmjax.sharing.mmoe import MMoE
from mmjax.sharing.mtan import MTAN
from mmjax.sharing.ple import PLE
from mmjax.sharing.task_specific import TaskSpecific

__all__ = [
    "CGC",
    "LTB",
    "MTAN",
    "PLE",
    "Copies",
    "CrossStitch",
    "DSelectK",
    "HardSharing",
    "MMoE",
    "TaskSpecific",
    "copied",
]
