"""Runs a model's backbone, or all copies of it that its sharing requests."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from mmjax.backbone import BackboneParts, BackbonePass, get_sown_values
from mmjax.sharing import Copies, copied


def run_backbones(
    sharing: nn.Module,
    common: BackboneParts,
    own: BackboneParts,
    run: Callable[..., Any],
    tasks: Sequence[str],
) -> tuple[Any, list[BackbonePass], list[Any]]:
    """Runs the backbone, or copies of it.

    Args:
      sharing: may request copies by a method `copies`; see `mmjax.sharing.Copies`.
      common: the parts of the backbone that serves all tasks.
      own: the parts of the backbones that serve one task each.
      run: parts -> (fused features, tokens, fused features of further passes), as
        `BackboneParts.run` returns them.
      tasks: names of the tasks, sorted.

    Returns:
      The fused features, `Copies` of them if the sharing requests it; one pass per copy; the fused
      features of the further passes, in the form of the first.
    """
    wanted = sharing.copies(tasks) if hasattr(sharing, "copies") else None
    if wanted is None:
        fused, tokens, others = run(common)
        return fused, [BackbonePass(fused, tokens, get_sown_values(common.fusion))], others
    stacks: list[Any] = []
    passes: list[BackbonePass] = []
    for count, parts, is_own in ((wanted.shared, common, False), (wanted.own, own, True)):
        stack: Any = copied(run, count)(parts) if count else (None, None, [])
        stacks.append(stack)
        stacked = BackbonePass(stack[0], stack[1], get_sown_values(parts.fusion))
        for i in range(count or 0):
            # Own copies are stacked task by task, `count // len(tasks)` for each.
            task = i * len(tasks) // count if is_own else None
            passes.append(jax.tree.map(lambda x, i=i: x[i], stacked)._replace(task=task))
    fused = Copies(*(stack[0] for stack in stacks))
    further = max(len(stack[2]) for stack in stacks)
    others = [Copies(*(s[2][j] if s[2] else None for s in stacks)) for j in range(further)]
    return fused, passes, others
