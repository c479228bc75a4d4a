"""Sharing: how the tasks use one fused representation."""

from mmjax.sharing.hard import HardSharing

__all__ = ["HardSharing"]
