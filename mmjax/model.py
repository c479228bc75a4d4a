"""The model: encoders -> fusion -> sharing -> heads, and auxiliary objectives on what they make."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.missing_token import StandIn
from mmjax.parameters import matching
from mmjax.sharing import Copies, HardSharing, copied
from mmjax.types import Batch, Branches, Params, Seen, Tokens

Modules = Mapping[str, nn.Module]
Features = dict[str, Float[Array, "b ..."] | Branches]
Objective = Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]


class Pass(NamedTuple):
    """What one backbone makes of a batch.

    Attributes:
      fused: what the fusion makes: Float[b d], or `Branches`.
      tokens: what the encoders make, by modality.
      sown: what the fusion sows.
      task: the place of the task that the backbone serves alone; None if it may serve all.
    """

    fused: Any
    tokens: dict[str, Tokens]
    sown: dict[str, Any]
    task: int | None = None

    def serves(self, task: int) -> bool:
        """Whether that task may see it."""
        return self.task in (None, task)


class Model(nn.Module):
    """Predicts every task from whatever modalities an example has.

    Any encoder goes with any fusion, sharing and head. What stands in the array of an absent
    modality, or behind the end of a sequence, has no effect on predictions or gradients.

    Attributes:
      encoders: {modality: module (x, length, *, train) -> Tokens}.
      fusion: module ({modality: Tokens}, *, train) -> Float[b d], or Branches.
      heads: {task: module (Float[b d], *, train) -> prediction}.
      sharing: module (Float[b d], tasks, *, train) -> {task: Float[b d_t]}. It may ask for several
        copies of encoders and fusion by a method `copies`; see `mmjax.sharing.Copies`.
      shared: patterns of the paths of the parameters that tasks share and balancers weigh, such as
        ("encoders_*",), where * matches anything; None is all but the heads' and those that the
        sharing gives to one task alone, which have a name that begins with own_.
      missing: what the fusion sees of a modality that an example lacks, in training and at test:
        "mask": nothing; "zeros": one token of zeros; "token": one learned token.
      auxiliary: {name: objective}, more losses to train with, each a module or a plain function of
        intermediate values; see `mmjax.auxiliary`.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    heads: Mapping[str, nn.Module]
    sharing: nn.Module = HardSharing()
    shared: tuple[str, ...] | None = None
    missing: Literal["mask", "zeros", "token"] = "mask"
    auxiliary: Mapping[str, Objective] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, unit in (("encoders", "modality"), ("heads", "task")):
            if not getattr(self, part):
                raise ValueError(f"The model's {part} are empty; give it one a {unit}.")
        if self.missing not in ("mask", "zeros", "token"):
            raise ValueError(f"missing is {self.missing!r}; use 'mask', 'zeros' or 'token'.")
        if both := sorted(set(self.heads) & set(self.auxiliary)):
            raise ValueError(
                f"{both[0]!r} is the name of a head and of an auxiliary objective; rename one."
            )
        for task, head in self.heads.items():
            check_tokens(task, head, self.encoders)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the parts that late fusion and sharings with several backbones need besides."""
        # Modules without calls have no parameters: these come to life where they are needed only.
        self.own_encoders = {m: encoder.copy() for m, encoder in self.encoders.items()}
        self.own_fusion = self.fusion.copy()
        self.stand_ins = {m: StandIn(self.missing == "token") for m in self.encoders}
        self.own_stand_ins = {m: stand_in.copy() for m, stand_in in self.stand_ins.items()}
        self.branch_sharing = {m: self.sharing.copy() for m in self.encoders}
        self.branch_heads = {
            m: {t: head.copy() for t, head in self.heads.items()} for m in self.encoders
        }

    def __call__(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> dict[str, Float[Array, "b ..."]]:
        """Predictions {task: [b, ...]} for the inputs of a `Batch`."""
        return self.predict(self.represent(inputs, present, lengths, train=train), train=train)

    def start(self, batch: Batch) -> None:
        """Calls every part once, so that `init` makes all parameters."""
        batch = jax.tree.map(jnp.asarray, batch)
        features, seen = self.see(*batch[:3], train=False)
        self.predict(features, train=False)
        self.objectives(dict.fromkeys(self.auxiliary, seen), batch, train=False, gather=identity)

    def represent(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> Features:
        """What each task's head gets: all of the model but the heads."""
        return self.see(inputs, present, lengths, train=train)[0]

    def see(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> tuple[Features, tuple[Seen, ...]]:
        """What each task's head gets, and what the objectives see of every backbone.

        Values that are sown are seen where the collection "intermediates" is mutable.
        """
        inputs, present, lengths = jax.tree.map(jnp.asarray, (inputs, present, lengths))
        tasks = tuple(sorted(self.heads))

        def backbone(fusion: nn.Module, encoders: Modules, stand_ins: Modules) -> Any:
            encoded = {
                m: encode(encoder, inputs[m], present[m], lengths.get(m), train=train)
                for m, encoder in sorted(encoders.items())
            }
            tokens = encoded
            if self.missing != "mask":
                tokens = {m: stand_ins[m](t) for m, t in tokens.items()}
            return fusion(tokens, train=train), encoded

        fused, passes = self.fuse(backbone, tasks)
        features = self.share(fused, tasks, train=train)
        for i, task in enumerate(tasks):
            if modality := getattr(self.heads[task], "tokens", None):
                tokens = [p.tokens[modality].values for p in passes if p.serves(i)]
                features[task] = in_context(task, jnp.stack(tokens).mean(axis=0), features[task])
        sown = sown_by(self.sharing)
        return features, tuple(
            Seen(p.tokens, p.fused, features, {"sharing": sown, "fusion": p.sown}) for p in passes
        )

    def share(self, fused: Any, tasks: Sequence[str], *, train: bool) -> Features:
        """Applies the sharing; under late fusion, to each branch."""
        weights = [branch_weights(fused, i, len(tasks)) for i in range(len(tasks))]
        if not weights[0]:
            return self.sharing(fused, tasks, train=train)
        branches = {
            m: self.branch_sharing[m](branch(fused, m), tasks, train=train) for m in weights[0]
        }
        return {
            t: Branches({m: x[t] for m, x in branches.items()}, weights[i])
            for i, t in enumerate(tasks)
        }

    def fuse(self, backbone: Callable[..., Any], tasks: Sequence[str]) -> tuple[Any, list[Pass]]:
        """What the fusion makes, or copies of it if the sharing asks for them; and each pass."""
        wanted = self.sharing.copies(tasks) if hasattr(self.sharing, "copies") else None
        common = (self.fusion, self.encoders, self.stand_ins)
        if wanted is None:
            fused, tokens = backbone(*common)
            return fused, [Pass(fused, tokens, sown_by(self.fusion))]
        single = (self.own_fusion, self.own_encoders, self.own_stand_ins)
        stacks, passes = [], []
        for count, parts, own in ((wanted.shared, common, False), (wanted.own, single, True)):
            stack: Any = copied(backbone, count)(*parts) if count else (None, None)
            stacks.append(stack[0])
            every = Pass(stack[0], stack[1], sown_by(parts[0]))
            for i in range(count or 0):
                task = i * len(tasks) // count if own else None
                passes.append(jax.tree.map(lambda x, i=i: x[i], every)._replace(task=task))
        return Copies(*stacks), passes

    def predict(self, features: Features, *, train: bool) -> dict[str, Float[Array, "b ..."]]:
        """Applies each task's head; under `Branches`, the mean of the branches' predictions."""
        return {
            t: self.predict_late(t, x, train=train)
            if isinstance(x, Branches)
            else self.heads[t](x, train=train)
            for t, x in features.items()
        }

    def objectives(
        self,
        seen: dict[str, tuple[Seen, ...]],
        batch: Batch,
        *,
        train: bool,
        gather: Callable[[Any], Any],
    ) -> dict[str, tuple[Float[Array, ""], Float[Array, ""]]]:
        """Each auxiliary objective's loss as (total, count), summed over all backbones."""

        def one(name: str) -> tuple[Float[Array, ""], Float[Array, ""]]:
            parts = [
                self.auxiliary[name](
                    backbone,
                    self.predict(backbone.features, train=train),
                    batch,
                    train=train,
                    gather=gather,
                )
                for backbone in seen[name]
            ]
            total, count = zip(*parts, strict=True)
            return jnp.stack(total).sum(), jnp.stack(count).sum()

        return {name: one(name) for name in sorted(self.auxiliary)}

    def predict_late(self, task: str, branches: Branches, *, train: bool) -> Float[Array, "b ..."]:
        """The weighted mean of the predictions that each branch makes with a head of its own."""
        total: Any = 0.0
        for m, values in branches.values.items():
            prediction = self.branch_heads[m][task](values, train=train)
            weight = jnp.expand_dims(branches.weights[m], range(1, prediction.ndim))
            total += weight * prediction
        return total


def encode(
    encoder: nn.Module,
    x: Any,
    present: Bool[Array, " b"],
    length: Any | None,
    *,
    train: bool,
) -> Tokens:
    """Encodes one modality; absent examples and padding are made zero before and masked after."""
    length = None if length is None else jnp.where(present, length, 0)
    tokens = encoder(jnp.where(real(x, present, length), x, zero(x)), length, train=train)
    mask = tokens.mask & present[:, None]
    return Tokens(jnp.where(mask[..., None], tokens.values, 0), mask)


def in_context(
    task: str, tokens: Float[Array, "b n d"], features: Float[Array, "b e"] | Branches
) -> Float[Array, "b n f"]:
    """Every token with the task's features beside it.

    Raises:
      ValueError: under late fusion, which has no features of all modalities.
    """
    if isinstance(features, Branches):
        raise ValueError(
            f"The head of {task!r} gets tokens beside what the fusion makes, but late fusion makes "
            "predictions only; use another fusion."
        )
    beside = jnp.broadcast_to(features[:, None], (*tokens.shape[:2], features.shape[-1]))
    return jnp.concatenate([tokens, beside], axis=-1)


def check_tokens(task: str, head: nn.Module, encoders: Modules) -> None:
    """Refuses a head that labels the tokens of no modality, or of one that the model lacks.

    Raises:
      ValueError: naming the task, the head and the modalities.
    """
    modality, kind = getattr(head, "tokens", None), type(head).__name__
    known = f"one of {sorted(encoders)}, whose tokens it labels"
    if modality is None and getattr(head, "features", "vector") == "tokens":
        raise ValueError(f"The head of {task!r} needs tokens: give {kind} tokens=, {known}.")
    if modality is not None and modality not in encoders:
        raise ValueError(f"The head of {task!r} has tokens={modality!r}; make it {known}.")


def real(x: Any, present: Bool[Array, " b"], length: Any | None) -> Bool[Array, "b ..."]:
    """Marks what an example has of a modality, to be broadcast: all, or up to its length."""
    mask: Array = jnp.expand_dims(present, range(1, x.ndim))
    if length is None:
        return mask
    inside = jnp.arange(x.shape[1])[None, :] < length[:, None]
    return mask & jnp.expand_dims(inside, range(2, x.ndim))


def zero(x: Any) -> Array:
    """0 in the type of x."""
    return jnp.zeros((), x.dtype)


def safe_inputs(batch: Batch) -> dict[str, Array]:
    """Inputs with zeros for what is missing or padding, where the array may hold anything."""
    return {
        m: jnp.where(real(x, batch.present[m], batch.lengths.get(m)), x, zero(x))
        for m, x in batch.inputs.items()
    }


def sown_by(module: nn.Module) -> dict[str, Any]:
    """What a module has sown itself as "intermediates", if that collection is kept."""
    sown = module.variables.get("intermediates", {})
    return {name: value[0] for name, value in sown.items() if isinstance(value, tuple)}


def identity(x: Any) -> Any:
    """What it is given: what `gather` does where there is one device."""
    return x


def branch(fused: Branches | Copies, modality: str) -> Any:
    """One modality's branch, or the copies of it."""
    return jax.tree.map(lambda x: x.values[modality], fused, is_leaf=is_branches)


def branch_weights(fused: Any, task: int, tasks: int) -> dict[str, Float[Array, " b"]]:
    """A task's weights of the branches, the mean over copies that it sees; {} without branches."""
    if not isinstance(fused, Copies):
        return fused.weights if is_branches(fused) else {}
    seen = [fused.shared.weights] if is_branches(fused.shared) else []
    if is_branches(fused.own):
        seen.append(jax.tree.map(lambda w: jnp.split(w, tasks)[task], fused.own.weights))
    return jax.tree.map(lambda *w: jnp.concatenate(w).mean(axis=0), *seen) if seen else {}


def is_branches(x: Any) -> bool:
    """Whether late fusion made this."""
    return isinstance(x, Branches)


def shared_parameters(model: Model, params: Params) -> PyTree[bool]:
    """Marks the parameters that tasks share: those of `model.shared`, or all but the tasks' own.

    An array that stacks one row a task is own too: each row has its own task's gradient only.
    """
    if model.shared is None:
        return jax.tree.map_with_path(lambda path, _: not of_one_task(path), params)
    chosen = matching(params, model.shared)
    return jax.tree.map(lambda c: c is not None, chosen, is_leaf=lambda c: c is None)


def of_one_task(path: tuple[Any, ...]) -> bool:
    """Whether a parameter belongs to one task: a head's, or one that a sharing calls own_."""
    part, *names = (p.key for p in path)
    if part.startswith(("sharing", "branch_sharing_")):
        return any(name.startswith("own_") for name in names)
    return bool(part.startswith(("heads_", "branch_heads_", "own_", "auxiliary_")))
