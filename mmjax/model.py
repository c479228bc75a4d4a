"""The model: encoders -> fusion -> sharing -> heads, and auxiliary objectives on their outputs."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.backbone import (
    BackboneParts,
    BackbonePass,
    SubsetPass,
    as_at_test,
    copy_module,
    get_sown_values,
    run_backbones,
)
from mmjax.branches import apply_head, apply_sharing, evaluate_branches, list_branches
from mmjax.layers.batch_norm import supply_batch_statistics
from mmjax.layers.missing_token import MissingToken
from mmjax.layers.rematerialize import rematerialize_modules
from mmjax.sharing import HardSharing
from mmjax.token_heads import append_tokens, check_token_head
from mmjax.types import Batch, Branches, Intermediates, Visible

Features = dict[str, Float[Array, "b ..."] | Branches]
Objective = Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]


class Model(nn.Module):
    """Predicts every task from the modalities that each example has.

    Any encoder goes with any fusion, sharing and head. The values in the array of an absent
    modality, or after the end of a sequence, have no effect on predictions or gradients.

    Attributes:
      encoders: {modality: module (x, length, *, train) -> Tokens}.
      fusion: module ({modality: Tokens}, *, train) -> Float[b d], or Branches.
      heads: {task: module (Float[b d], *, train) -> prediction}.
      sharing: module (Float[b d], tasks, *, train) -> {task: Float[b d_t]}. It may request several
        copies of encoders and fusion by a method `copies`; see `mmjax.sharing.Copies`.
      shared: patterns of the paths of the parameters that tasks share and balancers weight, such as
        ("encoders_*",), where * matches anything. None is all parameters except those of the heads
        and those that the sharing gives to one task, whose names begin with own_.
      missing: what the fusion gets for a modality that an example lacks, in training and at test:
        "mask": nothing; "zeros": one token of zeros; "token": one learned token; "bank": one
        learned token per pattern of the modalities that the example has.
      auxiliary: {name: objective}, additional losses, each a module or a plain function of
        intermediate values; see `mmjax.auxiliary`.
      remat: patterns of the paths of modules that the backward pass of training computes again, in
        place of keeping what they compute: ("*/layer*",) is every transformer layer, one at a time,
        ("encoders_image",) a whole encoder. The results are the same; see docs/memory.md.

    Example:
      >>> import functools
      >>> from mmjax.encoders import MLPEncoder
      >>> from mmjax.fusion import Concat
      >>> from mmjax.heads import Classification
      >>> model = Model({"sound": MLPEncoder((8,))}, Concat(), {"digit": Classification(10)})
      >>> inputs, present = {"sound": jnp.ones((2, 5))}, {"sound": jnp.array([True, False])}
      >>> init_and_predict = functools.partial(model.init_with_output, train=False)
      >>> predictions, _ = jax.eval_shape(init_and_predict, jax.random.key(0), inputs, present, {})
      >>> predictions["digit"].shape
      (2, 10)
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    heads: Mapping[str, nn.Module]
    sharing: nn.Module = HardSharing()
    shared: tuple[str, ...] | None = None
    missing: Literal["mask", "zeros", "token", "bank"] = "mask"
    auxiliary: Mapping[str, Objective] = dataclasses.field(default_factory=dict)
    remat: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, unit in (("encoders", "modality"), ("heads", "task")):
            if not getattr(self, part):
                raise ValueError(f"The model's {part} are empty; give it one per {unit}.")
        if self.missing not in (known := ("mask", "zeros", "token", "bank")):
            raise ValueError(f"missing is {self.missing!r}; use one of {known}.")
        if isinstance(self.remat, str):
            raise ValueError(f"The model's remat is {self.remat!r}; give a tuple of patterns.")
        if both := sorted(set(self.heads) & set(self.auxiliary)):
            raise ValueError(
                f"{both[0]!r} is the name of a head and of an auxiliary objective; rename one."
            )
        list_branches(self.encoders, self.fusion)  # which refuses equal names
        for task, head in self.heads.items():
            check_token_head(task, head, self.encoders)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the additional parts of late fusion and of sharings with several backbones."""
        # A module that is never called has no parameters, but takes time in every trace. The names
        # of these attributes are the parameters' paths, which checkpoints hold.
        patterns = 2 ** (len(self.encoders) - 1) if self.missing == "bank" else None
        replaced = () if self.missing == "mask" else self.encoders
        self.stand_ins = {m: MissingToken(self.missing != "zeros", patterns) for m in replaced}
        self.backbone = BackboneParts(self.fusion, self.encoders, self.stand_ins)
        self.own_backbone = self.backbone
        if hasattr(self.sharing, "copies"):
            self.own_encoders = {m: copy_module(encoder) for m, encoder in self.encoders.items()}
            self.own_fusion = copy_module(self.fusion)
            self.own_stand_ins = {m: stand_in.copy() for m, stand_in in self.stand_ins.items()}
            self.own_backbone = BackboneParts(
                self.own_fusion, self.own_encoders, self.own_stand_ins
            )
        branches = list_branches(self.encoders, self.fusion)
        self.branch_sharing = {m: copy_module(self.sharing) for m in branches}
        self.branch_heads = {
            m: {t: copy_module(head) for t, head in self.heads.items()} for m in branches
        }

    def __call__(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> dict[str, Float[Array, "b ..."]]:
        """Returns the predictions {task: [b, ...]} for the inputs of a `Batch`."""
        return self.predict(self.represent(inputs, present, lengths, train=train), train=train)

    def call_all_parts(self, batch: Batch) -> None:
        """Calls every part once, which makes `init` create all parameters."""
        batch = jax.tree.map(jnp.asarray, batch)
        features, seen = self.represent_and_record(*batch[:3], train=False)
        self.predict(features, train=False)
        backbones = dict.fromkeys(self.auxiliary, seen)
        self.compute_objectives(backbones, batch, train=False, gather=identity)

    start = call_all_parts  # the former name, for one release

    def represent(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> Features:
        """Returns the input of each task's head: runs the whole model except the heads."""
        return self.represent_and_record(inputs, present, lengths, train=train)[0]

    def represent_and_record(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
        axis_name: str | None = None,
        visible: Mapping[str, Visible] | None = None,
        scored: Sequence[tuple[str, ...]] = (),
    ) -> tuple[Features, tuple[Intermediates, ...]]:
        """Returns the input of each task's head, and the intermediate values of every backbone.

        Sown values are included if the collection "intermediates" is mutable. `axis_name` names the
        device axis, over which batch norms reduce their statistics. `visible`, with one value per
        example or one for all, hides modalities after their encoders, as if they were missing: a
        map over it encodes once; see `mmjax.modalities.subsets`. `scored` are subsets of the
        modalities from whose tokens the heads' inputs are computed again, as at test.
        """
        inputs, present, lengths = jax.tree.map(jnp.asarray, (inputs, present, lengths))
        tasks = tuple(sorted(self.heads))
        requested = [SubsetPass(s, train) for s in self._list_requested_subsets()]
        subsets = [*requested, *(SubsetPass(s, train=False) for s in scored)]

        def run_backbone(parts: BackboneParts) -> Any:
            options: Any = {"missing": self.missing, "train": train, "visible": visible}
            return parts.run(inputs, present, lengths, **options, subsets=subsets)

        backbones = self.backbone, self.own_backbone
        with self._supply_context(train=train, axis_name=axis_name):
            fused, passes, others = run_backbones(self.sharing, *backbones, run_backbone, tasks)
            features = self._make_features(fused, passes, SubsetPass(tuple(self.encoders), train))
            further = []
            for subset, x in zip(subsets, others, strict=True):
                further.append((subset.name, self._make_features(x, passes, subset)))
        extra = dict(further[: len(requested)]), dict(further[len(requested) :])
        sown = {"sharing": get_sown_values(self.sharing)}
        return features, tuple(
            Intermediates(p.tokens, p.fused, features, sown | {"fusion": p.sown}, *extra)
            for p in passes
        )

    @contextlib.contextmanager
    def _supply_context(self, *, train: bool, axis_name: str | None) -> Iterator[None]:
        """Supplies what the parts of the model do not know: batch statistics, and `remat`."""
        with (
            supply_batch_statistics(train=train, axis_name=axis_name),
            rematerialize_modules(self.remat if train else ()),
        ):
            yield

    def _list_requested_subsets(self) -> list[tuple[str, ...]]:
        """Returns the subsets of modalities whose predictions the auxiliary objectives request."""
        modalities = tuple(sorted(self.encoders))
        requests = [o.subsets for o in self.auxiliary.values() if hasattr(o, "subsets")]
        return sorted({tuple(sorted(s)) for request in requests for s in request(modalities)})

    def _make_features(
        self, fused: Any, passes: Sequence[BackbonePass], subset: SubsetPass
    ) -> Features:
        """Returns the input of each task's head from the fused features of a subset."""
        tasks = tuple(sorted(self.heads))
        with as_at_test(subset):
            features: Features = apply_sharing(
                self.sharing, self.branch_sharing, fused, tasks, train=subset.train
            )
        return append_tokens(self.heads, features, passes, subset.modalities)

    def predict(
        self, features: Features, *, train: bool, axis_name: str | None = None
    ) -> dict[str, Float[Array, "b ..."]]:
        """Applies each task's head; under `Branches`, combines the branches' predictions."""
        with self._supply_context(train=train, axis_name=axis_name):
            return {
                t: apply_head(self.heads, self.branch_heads, t, x, train=train)
                for t, x in features.items()
            }

    def compute_objectives(
        self,
        seen: dict[str, tuple[Intermediates, ...]],
        batch: Batch,
        *,
        train: bool,
        gather: Callable[[Any], Any],
        axis_name: str | None = None,
    ) -> dict[str, tuple[Float[Array, ""], Float[Array, ""]]]:
        """Returns each auxiliary objective's loss as (total, count), summed over all backbones.

        Args:
          seen: {objective: intermediate values of every backbone}.
          batch: the batch.
          train: whether this is a training step.
          gather: concatenates an array [b, ...] of every device.
          axis_name: name of the device axis.
        """
        sums = {}
        options: Any = {"train": train, "axis_name": axis_name}
        for name in sorted(self.auxiliary):
            objective = self.auxiliary[name]
            totals, counts = [], []
            for backbone in seen[name]:
                predictions = self.predict(backbone.features, **options)
                complete = self._add_requested_values(objective, backbone, batch.targets, options)
                with self._supply_context(**options):
                    total, count = objective(
                        complete, predictions, batch, train=train, gather=gather
                    )
                totals.append(total)
                counts.append(count)
            sums[name] = jnp.stack(totals).sum(), jnp.stack(counts).sum()
        return sums

    def _add_requested_values(
        self, objective: Any, backbone: Intermediates, targets: dict[str, Any], options: Any
    ) -> Intermediates:
        """Adds the predictions from subsets of the modalities or per branch if requested."""
        if hasattr(objective, "subsets"):
            subsets = {s: self.predict(dict(x), **options) for s, x in backbone.subsets.items()}
            backbone = backbone._replace(subsets=subsets)
        if getattr(objective, "needs_branches", False):
            with self._supply_context(**options):
                branches = evaluate_branches(
                    self.branch_heads, backbone.features, targets, train=options["train"]
                )
            backbone = backbone._replace(branches=branches)
        return backbone


def identity(x: Any) -> Any:
    """Returns its argument: `gather` on a single device."""
    return x
