"""Tests whether joint training leaves a modality unlearned that training alone would learn.

    python experiments/unlearned_modalities.py runs/unlearned_modalities

Claim 3 (Huang et al., "Modality competition", ICML 2022): a network with late fusion that is
trained jointly learns only some of its modalities; the encoders of the others stay worse than if
they were trained alone. Here one label of 0.9 bits is held by both modalities of `interactions`:
`a`, a vector, is learned fast, `b`, which has it at one random step of a sequence, slowly. The
joint model and the two models of one modality have the same encoders, a linear head, the same
optimizer and the same number of steps. Every encoder is then probed: a linear head on its mean
tokens, fitted on the training split, its penalty selected on the validation split, scored on the
test split.

Expected by the claim: the probe of `b` is worse after joint training than after training alone, and
that of `a` is not.

Measured over seeds 0 to 4 (mean and 95% interval, test split; a minute of processor time); the best
possible expected accuracy is 0.987:

    probe of   trained alone   trained jointly   difference      p
    a          0.989 ± 0.000   0.989 ± 0.000     0.000 ± 0.000   1.000
    b          0.989 ± 0.000   0.989 ± 0.000     0.000 ± 0.000   1.000

Verdict: not seen. After six epochs every probe is as good as can be, jointly trained or not. The
test is weak, and refutes nothing: the bit is linearly decodable from the sum over the steps, and a
probe may read it off an encoder that has learned little; probes of untrained encoders, and data
that need learned features, would tell.
"""

import argparse
from pathlib import Path

import numpy as np
import optax

from mmjax import fit
from mmjax.config import auto_config, build_config, single_modality
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder, RecurrentEncoder, gru
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.intervals import format_mean_interval
from mmjax.modalities.contribution.probes import probe_encoders
from mmjax.modalities.contribution.subset_metrics import summarize_records
from mmjax.model import Model
from mmjax.printing.console import print_table
from mmjax.report.statistics import paired_t_test
from mmjax.runs.trained import make_trained

SEEDS = (0, 1, 2, 3, 4)
METRIC = "redundancy/accuracy"


@auto_config
def experiment() -> Experiment:
    """Builds a perceptron beside a GRU, and one linear head."""
    return Experiment(
        data=interactions(
            redundancy=0.9,
            uniqueness=0.0,
            synergy=0.0,
            width=8,
            steps=8,
            train=4096,
            validation=1024,
            test=4096,
        ),
        model=Model(
            encoders={
                "a": MLPEncoder(features=(16,)),
                "b": RecurrentEncoder(cell=gru(), width=16),
            },
            fusion=Concat(),
            heads={"redundancy": Classification(2)},
        ),
        # 32 steps per epoch: 4,096 examples in batches of 128.
        optimizer=optax.adam(3e-3),
        epochs=6,
        batch_size=128,
        eval_batch_size=1024,
    )


def probe_arm(made: Experiment, directory: Path) -> dict[str, np.ndarray]:
    """Trains five seeds of an arm; returns the accuracy of each encoder's probe by seed."""
    trained = make_trained(made, fit(made, directory, seeds=SEEDS).best, SEEDS)
    probes = probe_encoders(trained, made.data)
    return {
        m: np.array([summarize_records(trained.model, of_seed[m])[METRIC] for of_seed in probes])
        for m in trained.model.encoders
    }


def main() -> None:
    """Trains the three arms, probes their encoders, and tests joint against alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="directory of the three trainings")
    directory = parser.parse_args().directory
    scores = {
        arm: probe_arm(build_config(config), directory / arm)
        for arm, config in single_modality(experiment.as_buildable()).items()
    }
    rows = [["probe of", "trained alone", "trained jointly", "difference", "p"]]
    for m in ("a", "b"):
        alone, joint = scores[m][m], scores["all"][m]
        p = paired_t_test((joint - alone)[None])[0]
        cells = [format_mean_interval(x) for x in (alone, joint, joint - alone)]
        rows.append([m, *cells, f"{p:.3f}"])
    print_table(rows, f"Accuracy of linear probes; the best possible is {best_accuracy():.3f}")


def best_accuracy() -> float:
    """Returns the accuracy of the Bayes-optimal predictor."""
    facts = experiment().data.facts
    return float(facts["bayes_accuracy"]["redundancy"]["a+b"])


if __name__ == "__main__":
    main()
