"""Claim 3: joint training leaves a modality unlearned that training alone would learn.

    python experiments/unlearned_modalities.py runs/unlearned_modalities

Source: Huang et al., "Modality competition: what makes joint training of multi-modal network fail
in deep learning? (Provably)", ICML 2022: a network with late fusion that is trained jointly learns
only some of its modalities; the encoders of the others stay near their initialization.

The label is the parity of 2 of the 32 signs of `a`, which is learned fast, and of 3 of the 20 signs
of `b`, which is learned slowly. Neither parity is linear in its signs, so that a linear probe of an
untrained encoder is near chance, 0.5, and one above it shows learned features. The best accuracy
from `a` is 1, or 0.9 if its parity is flipped with probability 0.1; that from `b` is 1. The joint
model is a sum of linear heads of the encoders (concat), or the mean of two branches with a hidden
layer each (late). It and the models of one modality have the same encoders, optimizer and number
of steps. Every encoder is then probed: a linear head on its output, fitted on the training split,
its penalty selected on the validation split, scored on the test split.

Expected, if the claim holds: the probe of `b` is worse after joint training than after training
alone, and near that of the untrained encoder; that of `a` is as good.

Measured accuracy of the probes over seeds 0 to 4 (mean and 95% interval, test split; paired t-tests
of jointly - alone with Holm's correction over the ten), in 3.5 minutes of processor time:

    fusion  flips  epochs  of  untrained      alone          jointly        difference      p
    concat  0      16      a   0.553 ± 0.009  1.000 ± 0.000  1.000 ± 0.000   0.000 ± 0.000  1
                           b   0.501 ± 0.009  0.887 ± 0.260  0.501 ± 0.007  -0.385 ± 0.259  0.09
    concat  0      64      a   0.553 ± 0.009  1.000 ± 0.000  1.000 ± 0.000   0.000 ± 0.000  1
                           b   0.501 ± 0.009  1.000 ± 0.000  0.501 ± 0.007  -0.499 ± 0.007  4e-8
    concat  0.1    64      a   0.553 ± 0.009  0.871 ± 0.005  0.886 ± 0.011   0.015 ± 0.009  0.06
                           b   0.501 ± 0.009  1.000 ± 0.000  1.000 ± 0.000   0.000 ± 0.000  1
    late    0      64      a   0.553 ± 0.009  1.000 ± 0.001  1.000 ± 0.000   0.000 ± 0.001  1
                           b   0.501 ± 0.009  0.883 ± 0.116  0.518 ± 0.038  -0.366 ± 0.105  0.005
    late    0.1    64      a   0.553 ± 0.009  0.696 ± 0.031  0.850 ± 0.040   0.155 ± 0.023  4e-4
                           b   0.501 ± 0.009  0.883 ± 0.116  0.953 ± 0.055   0.069 ± 0.087  0.5

Verdict: the claim holds if `a` tells the whole label. Then the jointly trained encoder of `b` stays
at chance, where it began, with either fusion, while 64 epochs alone teach it the parity (to 0.883
with the hidden layer of late fusion; 16 epochs, not with every seed). It fails if a tenth of the
labels contradicts `a`: these keep the loss up, `b` is learned as well as alone, and under late
fusion the probe of `a` even gains; alone, `a` probably learns the contradicting labels by heart.
On `interactions`, whose bits are linear in the inputs, all probes had the best accuracy, jointly
trained or not: that test is too weak.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import optax

from mmjax import fit
from mmjax.config import auto_config, build_config, single_modality
from mmjax.data import from_arrays
from mmjax.data.dataset import Dataset, Task
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat, Late
from mmjax.heads import Classification
from mmjax.intervals import format_mean_interval
from mmjax.modalities.contribution.probes import probe_encoders
from mmjax.modalities.contribution.subset_metrics import summarize_records
from mmjax.model import Model
from mmjax.printing.console import print_table
from mmjax.report.statistics import holm, paired_t_test
from mmjax.runs.trained import make_trained

SEEDS = (0, 1, 2, 3, 4)
METRIC = "parity/accuracy"
SIZES = {"train": 4096, "validation": 1024, "test": 4096}
# {modality: (number of signs, number of those whose product is the label)}.
PARITIES = {"a": (32, 2), "b": (20, 3)}
FUSIONS = {"concat": Concat(), "late": Late(width=32)}
# (fusion, probability that the parity in `a` is wrong, epochs).
SETTINGS = (
    ("concat", 0.0, 16),
    ("concat", 0.0, 64),
    ("concat", 0.1, 64),
    ("late", 0.0, 64),
    ("late", 0.1, 64),
)


def parities(flips: float = 0.0, seed: int = 0) -> Dataset:
    """Makes a binary label that is a parity of a few of the signs of either modality.

    Args:
      flips: probability that the parity in `a` is wrong; that in `b` never is.
      seed: random seed of the examples.
    """
    splits = {}
    for stream, (split, size) in enumerate(SIZES.items()):
        rng = np.random.default_rng([seed, stream])
        label = rng.integers(2, size=size)
        wrong = {"a": rng.random(size) < flips, "b": np.zeros(size, bool)}
        splits[split] = {"parity": label}
        for m, (count, order) in PARITIES.items():
            signs = rng.choice([-1.0, 1.0], size=(size, count))
            # The last sign of the parity follows from the others and the label.
            product = np.where(label ^ wrong[m], -1.0, 1.0)
            signs[:, order - 1] = product * signs[:, : order - 1].prod(axis=1)
            splits[split][m] = signs
    task = Task("classification", ("0", "1"))
    return from_arrays(
        splits,
        list(PARITIES),
        ["parity"],
        tasks={"parity": task},
        standardize=[],
        name="parities",
    )


@auto_config
def experiment(flips: float = 0.0) -> Experiment:
    """Builds two perceptrons, and a linear head on both."""
    return Experiment(
        data=parities(flips),
        model=Model(
            encoders={"a": MLPEncoder(features=(32,)), "b": MLPEncoder(features=(32,))},
            fusion=Concat(),
            heads={"parity": Classification(2)},
        ),
        # 32 steps per epoch: 4,096 examples in batches of 128.
        optimizer=optax.adam(4e-3),
        batch_size=128,
        eval_batch_size=1024,
    )


def probe_arm(made: Experiment, directory: Path) -> dict[str, np.ndarray]:
    """Trains five seeds of an arm; returns the accuracy of each encoder's probe by seed."""
    # The last parameters, not the best: the number of epochs is what is studied.
    made = dataclasses.replace(made, eval_every=made.epochs)
    trained = make_trained(made, fit(made, directory, seeds=SEEDS).best, SEEDS)
    probes = probe_encoders(trained, made.data)
    return {
        m: np.array([summarize_records(trained.model, of_seed[m])[METRIC] for of_seed in probes])
        for m in trained.model.encoders
    }


def probe_untrained(directory: Path) -> dict[str, np.ndarray]:
    """Probes the initial encoders: an optimizer whose updates are zero leaves them as they are."""
    made = dataclasses.replace(experiment(), optimizer=optax.set_to_zero(), epochs=1)
    return probe_arm(made, directory)


def probe_setting(
    fusion: str, flips: float, epochs: int, directory: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the accuracy by seed of {modality: probes (after training alone, jointly)}."""
    scores = {}
    for arm, config in single_modality(experiment.as_buildable(flips)).items():
        made = dataclasses.replace(build_config(config), epochs=epochs)
        made = dataclasses.replace(made, model=made.model.clone(fusion=FUSIONS[fusion]))
        scores[arm] = probe_arm(made, directory / f"{fusion},{flips=},{epochs=},{arm}")
    return {m: (scores[m][m], scores["all"][m]) for m in PARITIES}


def main() -> None:
    """Trains all arms, and prints the table of this file's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="directory of the trainings")
    directory = parser.parse_args().directory
    untrained = probe_untrained(directory / "untrained")
    rows, differences = [], []
    for setting in SETTINGS:
        for m, (alone, joint) in probe_setting(*setting, directory).items():
            values = (untrained[m], alone, joint, joint - alone)
            rows.append([*map(str, setting), m, *map(format_mean_interval, values)])
            differences.append(joint - alone)
    p = holm(paired_t_test(np.stack(differences)))
    header = ["fusion", "flips of a", "epochs", "probe of"]
    header += ["untrained", "alone", "jointly", "difference", "p (Holm)"]
    table = [header] + [[*row, f"{x:.1g}"] for row, x in zip(rows, p, strict=True)]
    print_table(table, "Accuracy of linear probes on the test split", words=4)


if __name__ == "__main__":
    main()
