import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.builtin.information import flip_probability
from mmjax.data.builtin.interactions import interactions, make_basis
from mmjax.data.checks.validate import validate_split

REPOSITORY = Path(__file__).parents[3]
SMALL = {"train": 64, "validation": 32, "test": 48}
THREE = ("vector", "sequence", "vector")
UNEQUAL = {"redundancy": 0.8, "uniqueness": (0.5, 0.0), "synergy": 0.6, "noise": 0.1}


def held_by(data, modality):
    """The tasks that write a bit into a modality, in the order that `basis` documents."""
    tasks = [t for t in data.tasks if t == "redundancy" or modality in t.partition("_")[2]]
    return [t for t in tasks if t != "mixed"]


def decoded(data, split="train", seed=0):
    """{modality: {task: bits}}, read off the inputs alone; every coordinate must be -1 or 1."""
    batch, read = data.splits[split].batch, {}
    for number, m in enumerate(data.modalities):
        x = batch.inputs[m].astype(np.float64)
        summed = x.sum(axis=1) if data.modalities[m].sequence else x
        axes = make_basis(seed, number, x.shape[-1])
        bits = {t: summed @ axes[i] for i, t in enumerate(held_by(data, m))}
        for values in bits.values():
            np.testing.assert_allclose(np.abs(values), 1, atol=1e-5)
        read[m] = {t: (values > 0).astype(int) for t, values in bits.items()}
    return read


def posterior(task, modalities, p, noise):
    """P(label 1, seen bits) of one binary task by brute force over every hidden bit and flip."""
    members = modalities if task == "redundancy" else tuple(task.partition("_")[2])
    hidden = 1 if task == "redundancy" else len(members)
    table = {}
    for z in itertools.product((0, 1), repeat=hidden):
        for flips in itertools.product((0, 1), repeat=1 + len(members)):
            label = sum(z) % 2 ^ flips[0]
            copies = z * len(members) if task == "redundancy" else z
            seen = tuple(c ^ f for c, f in zip(copies, flips[1:], strict=True))
            weight = 0.5**hidden * (p if flips[0] else 1 - p)
            for f in flips[1:]:
                weight *= noise if f else 1 - noise
            key = dict(zip(members, seen, strict=True))
            key = (label, tuple(sorted(key.items())))
            table[key] = table.get(key, 0) + weight
    return table


def brute_force(table, subset):
    """(Bayes accuracy, bits) of the label from the subset's modalities."""
    joint = {}
    for (label, seen), weight in table.items():
        kept = tuple(pair for pair in seen if pair[0] in subset)
        joint.setdefault(kept, [0, 0])[label] += weight
    chance = [sum(w[y] for w in joint.values()) for y in (0, 1)]
    bits = sum(
        w[y] * np.log2(w[y] / (sum(w) * chance[y])) for w in joint.values() for y in (0, 1) if w[y]
    )
    return sum(max(w) for w in joint.values()), bits


def test_without_flips_the_facts_are_whole_numbers():
    facts = interactions(**SMALL).facts
    assert facts["information_bits"] == {
        "redundancy": {"none": 0, "a": 1, "b": 1, "a+b": 1},
        "uniqueness_a": {"none": 0, "a": 1, "b": 0, "a+b": 1},
        "uniqueness_b": {"none": 0, "a": 0, "b": 1, "a+b": 1},
        "synergy_ab": {"none": 0, "a": 0, "b": 0, "a+b": 1},
        "mixed": {"none": 0, "a": 2, "b": 2, "a+b": 4},
    }
    accuracy = facts["bayes_accuracy"]
    assert accuracy["synergy_ab"] == {"none": 0.5, "a": 0.5, "b": 0.5, "a+b": 1}
    assert accuracy["mixed"] == {"none": 1 / 16, "a": 1 / 4, "b": 1 / 4, "a+b": 1}


@pytest.mark.parametrize("order", [2, 3])
def test_three_modalities_share_a_parity_by_pairs_or_all(order):
    data = interactions(modalities=THREE, order=order, **SMALL)
    bits = data.facts["information_bits"]
    subsets = ["none", "a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    assert all(list(of_task) == subsets for of_task in bits.values())
    if order == 3:
        assert bits["synergy_abc"] == {s: float(s == "a+b+c") for s in subsets}
    else:
        assert bits["synergy_ac"] == {s: float({"a", "c"} <= set(s)) for s in subsets}
        assert {"synergy_ab", "synergy_bc"} <= set(bits)
    assert len(data.tasks["mixed"].classes) == 2 ** (len(bits) - 1)


def test_the_chosen_bits_are_what_the_labels_tell():
    chosen = {"redundancy": 0.8, "uniqueness": (0.5, 0.25), "synergy": 0.6}
    bits = interactions(**chosen, **SMALL).facts["information_bits"]
    assert bits["redundancy"] == pytest.approx({"none": 0, "a": 0.8, "b": 0.8, "a+b": 0.8})
    assert bits["uniqueness_b"] == pytest.approx({"none": 0, "a": 0, "b": 0.25, "a+b": 0.25})
    assert bits["synergy_ab"] == pytest.approx({"none": 0, "a": 0, "b": 0, "a+b": 0.6})
    mixed = {"none": 0, "a": 0.8 + 0.5, "b": 0.8 + 0.25, "a+b": 0.8 + 0.5 + 0.25 + 0.6}
    assert bits["mixed"] == pytest.approx(mixed)


@pytest.mark.parametrize("modalities, order", [(("vector", "vector"), 2), (THREE, 2), (THREE, 3)])
def test_facts_by_brute_force(modalities, order):
    amounts = {"redundancy": 0.7, "uniqueness": 0.4, "synergy": 0.9}
    data = interactions(modalities=modalities, order=order, noise=0.07, **amounts, **SMALL)
    facts, names = data.facts, tuple(data.modalities)
    for task in list(data.tasks)[:-1]:
        table = posterior(task, names, flip_probability(amounts[task.partition("_")[0]]), 0.07)
        for subset in facts["bayes_accuracy"][task]:
            accuracy, bits = brute_force(table, subset.split("+"))
            assert facts["bayes_accuracy"][task][subset] == pytest.approx(accuracy, abs=1e-11)
            assert facts["information_bits"][task][subset] == pytest.approx(bits, abs=1e-11)
    # The parts are independent, so the best guess of all labels is the best guess of each.
    for name, combine in {"bayes_accuracy": np.prod, "information_bits": np.sum}.items():
        for subset, value in facts[name]["mixed"].items():
            single = [facts[name][task][subset] for task in list(data.tasks)[:-1]]
            assert value == pytest.approx(combine(single), abs=1e-10)


def test_noise_in_closed_form():
    facts = interactions(modalities=THREE, order=3, noise=0.1, **SMALL).facts["bayes_accuracy"]
    assert facts["uniqueness_c"]["c"] == pytest.approx(0.9)
    # a parity of three is right if none or two are flipped; a vote of three if at most one is
    assert facts["synergy_abc"]["a+b+c"] == pytest.approx(0.9**3 + 3 * 0.9 * 0.1**2)
    assert facts["redundancy"]["a+b+c"] == pytest.approx(0.9**3 + 3 * 0.9**2 * 0.1)
    assert facts["redundancy"]["a+b"] == pytest.approx(0.9)


@pytest.mark.parametrize("kinds", [("vector", "sequence"), ("sequence", "sequence", "vector")])
def test_generated_examples_agree_with_the_facts(kinds):
    examples = 40_000
    amounts = {"redundancy": 0.8, "uniqueness": 0.5, "synergy": 0.6}
    size = {**SMALL, "train": examples}
    data = interactions(modalities=kinds, noise=0.1, steps=3, width=5, **amounts, **size)
    read, targets = decoded(data), data.splits["train"].batch.targets
    for task in list(data.tasks)[:-1]:
        for subset, best in data.facts["bayes_accuracy"][task].items():
            bits = [read[m][task] for m in subset.split("+") if task in read.get(m, {})]
            symbols = sum((b << i for i, b in enumerate(bits)), np.zeros(examples, int))
            joint = np.zeros((2, 1 << len(bits)))
            np.add.at(joint, (targets[task], symbols), 1 / examples)
            # 4.5 standard errors, and what the plug-in estimate adds by choosing the larger
            assert joint.max(axis=0).sum() == pytest.approx(best, abs=4.5 * 0.5 / 200 + 0.01)
            here = joint > 0
            apart = joint.sum(1)[:, None] * joint.sum(0)[None]
            told = (joint[here] * np.log2(joint[here] / apart[here])).sum()
            assert told == pytest.approx(data.facts["information_bits"][task][subset], abs=0.02)


def test_bits_and_labels_fit_exactly_where_nothing_is_flipped():
    data = interactions(modalities=THREE, **SMALL)
    read, targets = decoded(data), data.splits["train"].batch.targets
    for m in "abc":
        np.testing.assert_array_equal(read[m]["redundancy"], targets["redundancy"])
        np.testing.assert_array_equal(read[m][f"uniqueness_{m}"], targets[f"uniqueness_{m}"])
    for one, other in itertools.combinations("abc", 2):
        task = f"synergy_{one}{other}"
        np.testing.assert_array_equal(read[one][task] ^ read[other][task], targets[task])
    classes = [data.tasks["mixed"].classes[i] for i in targets["mixed"]]
    expected = [
        "".join(map(str, row))
        for row in zip(*(targets[t] for t in list(targets)[:-1]), strict=True)
    ]
    assert classes == expected


def test_what_is_left_of_a_modality_is_bounded_and_tells_nothing():
    examples = 20_000
    data = interactions(**{**SMALL, "train": examples}, **UNEQUAL)
    batch = data.splits["train"].batch
    labels = np.stack(list(batch.targets.values())[:-1], axis=1) - 0.5
    rest = batch.inputs["a"].astype(np.float64) @ make_basis(0, 0, 16)[len(held_by(data, "a")) :].T
    assert 0.99 < np.abs(rest).max() <= 1 + 1e-5
    others = [rest, np.abs(rest), batch.lengths["b"][:, None] * 1.0]
    others = np.concatenate([x - x.mean(axis=0, keepdims=True) for x in others], axis=1)
    others /= others.std(axis=0, keepdims=True)
    assert np.abs(others.T @ labels / 0.5 / examples).max() < 4.5 / np.sqrt(examples)


def test_sequences_end_where_their_length_says():
    batch = interactions(steps=7, **SMALL).splits["train"].batch
    lengths = batch.lengths["b"]
    assert set(np.unique(lengths)) == {4, 5, 6, 7}
    here = np.abs(batch.inputs["b"]).max(axis=2) > 0
    np.testing.assert_array_equal(here, np.arange(7)[None] < lengths[:, None])


def features(batch):
    """Concatenated linear readings of both modalities: what a linear head after Concat sees."""
    return np.hstack([batch.inputs["a"], batch.inputs["b"].sum(axis=1)]).astype(np.float64)


def test_synergy_needs_a_product_and_the_rest_does_not():
    data = interactions(**{**SMALL, "train": 4000, "test": 4000})
    train, test = data.splits["train"].batch, data.splits["test"].batch

    def products(x):
        return (x[:, :16, None] * x[:, None, 16:]).reshape(len(x), -1)

    def accuracy(task, transform):
        x, y = transform(features(train)), 2.0 * train.targets[task] - 1
        weights = np.linalg.solve(x.T @ x, x.T @ y)  # least squares
        return ((transform(features(test)) @ weights > 0) == test.targets[task]).mean()

    for task in ("redundancy", "uniqueness_a", "uniqueness_b"):
        assert accuracy(task, np.asarray) > 0.99
    assert abs(accuracy("synergy_ab", np.asarray) - 0.5) < 0.1
    assert accuracy("synergy_ab", products) > 0.99


def test_what_is_made_is_a_valid_data_set_and_no_split_shares_an_example():
    data = interactions(modalities=THREE, **UNEQUAL | {"uniqueness": 0.0}, **SMALL)
    rows = []
    for split, source in data.splits.items():
        assert len(source) == SMALL[split]
        validate_split(data.name, split, source.batch, data.modalities, data.tasks)
        rows += [row.tobytes() for row in source.batch.inputs["a"]]
    assert len(set(rows)) == sum(SMALL.values())
    assert list(data.tasks) == ["redundancy", "synergy_ab", "synergy_ac", "synergy_bc", "mixed"]


def test_the_seed_decides_and_splits_do_not_depend_on_each_other():
    first, again, larger = (
        interactions(**{**SMALL, "train": n}).splits["test"].batch.inputs["b"]
        for n in (64, 64, 100)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, larger)
    assert not np.array_equal(first, interactions(seed=1, **SMALL).splits["test"].batch.inputs["b"])
    assert np.abs(make_basis(0, 0, 16) @ make_basis(0, 1, 16).T - np.eye(16)).max() > 0.1
    np.testing.assert_allclose(
        make_basis(3, 1, 16) @ make_basis(3, 1, 16).T, np.eye(16), atol=1e-12
    )


@pytest.mark.parametrize(
    "argument, message",
    [
        ({"modalities": ("vector",)}, r"modalities is \('vector',\); give two or three"),
        ({"modalities": ("vector", "image")}, "each 'vector' or 'sequence'"),
        ({"redundancy": 1.5}, "redundancy is 1.5; give a number of bits from 0 to 1"),
        ({"synergy": float("nan")}, "synergy_ab is nan; give"),
        ({"uniqueness": (0.5, -0.5)}, "uniqueness_b is -0.5; give"),
        (
            {"uniqueness": (0.5,)},
            r"uniqueness is \(0.5,\); give one number, or 2, one per modality",
        ),
        ({"redundancy": 0.0, "uniqueness": 0.0, "synergy": 0.0}, "all 0; give at least one"),
        ({"order": 3}, "order is 3 with 2 modalities; an exclusive or joins"),
        ({"noise": 0.5}, "noise is 0.5; it must be at least 0 and less than 0.5"),
        ({"width": 2}, "width is 2; a modality holds 3 bits, one per channel"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"validation": 0}, "validation is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        interactions(**{**SMALL, **argument})


@pytest.mark.slow
def test_the_experiment_reaches_the_best_accuracy_with_both_modalities_and_each_alone(tmp_path):
    command = [sys.executable, "experiments/interactions.py", "--workdir", str(tmp_path / "run")]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=900)
    amounts = {"redundancy": 0.8, "uniqueness": 0.7, "synergy": 0.6, "noise": 0.02}
    best = interactions(**amounts, **SMALL).facts["bayes_accuracy"]
    arms = json.loads((tmp_path / "run" / "summary.json").read_text())
    for arm, subset in {"all": "a+b", "a": "a", "b": "b"}.items():
        reached = arms[arm]["seeds"]["0"]["test"]
        for task in list(best)[:-1]:
            assert abs(reached[f"{task}/accuracy"] - best[task][subset]) < 0.02, (arm, task)
