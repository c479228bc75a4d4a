"""Fusions: the tokens of all modalities become one vector an example."""

from mmjax.fusion.concat import Concat
from mmjax.fusion.gated import Gated
from mmjax.fusion.late import Late
from mmjax.fusion.mean import Mean
from mmjax.fusion.pool import pool

__all__ = ["Concat", "Gated", "Late", "Mean", "pool"]
