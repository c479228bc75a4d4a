"""The Python of README.md and docs/ runs, CI finds the set-up commands, and local links resolve."""

import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmjax
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.cli import script

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)


def find_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def find_anchors(page):
    """Returns the anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_two_set_up_commands_of_one_line_each():
    commands = find_blocks(README, "sh setup")
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)


def test_the_readme_is_a_landing_page():
    assert len(README.read_text().splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_local_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in find_anchors(linked), target


def test_the_citations_name_the_version():
    assert re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M) == [
        mmjax.__version__
    ]
    assert f"version = {{{mmjax.__version__}}}" in README.read_text()


def test_the_picture_of_the_architecture_is_what_its_script_draws():
    script_names = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert picture == script_names["draw_architecture"]()


@pytest.fixture
def readme_example(tmp_path):
    """One file with the Python of the README."""
    path = tmp_path / "readme_example.py"
    path.write_text("\n\n".join(find_blocks(README, "python")))
    return path


def test_the_readme_example_builds_an_experiment(readme_example, monkeypatch):
    fitted = []

    def fit_nothing(experiment, directory, *, seeds):
        fitted.append((experiment, directory, seeds))
        raise SystemExit

    monkeypatch.setattr(mmjax, "fit", fit_nothing)
    with pytest.raises(SystemExit):
        runpy.run_path(str(readme_example))
    ((experiment, directory, seeds),) = fitted
    assert (directory, seeds) == (Path("runs/first"), (0, 1))
    assert sorted(experiment.model.heads) == ["redundancy", "synergy_ab"]
    labeled = experiment.data.splits["train"].take(np.arange(4096)).labeled["redundancy"]
    assert 0.85 < labeled.mean() < 0.95


@pytest.mark.slow
def test_the_readme_example_trains(readme_example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(readme_example))
    assert float(capsys.readouterr().out.split()[-1]) > 0.9


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """One file with all the Python of docs/extending.md."""
    path = tmp_path_factory.mktemp("extending") / "example.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "extending.md", "python")))
    return path


@pytest.mark.slow
def test_the_extending_example_trains(example, tmp_path):
    """The model distinguishes three tones far better than by chance."""
    script(["run", str(example), "--workdir", str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["all"]["seeds"]["0"]["test"]["kind/accuracy"] > 0.7


def test_the_example_balancer_gives_gradients_of_one_length(example):
    names = runpy.run_path(str(example))
    gram = np.array([[4.0, 1.0], [1.0, 9.0]])
    update = names["unit_gradients"]().update
    gradients = np.linalg.cholesky(gram)  # rows whose Gramian is the one above
    _, weights, _ = update(
        np.ones(2, np.float32),
        pullback_from_jacobian({"p": jnp.asarray(gradients, jnp.float32)}, {"p": True}),
        (),
        key=jax.random.key(0),
        labeled=np.ones(2, bool),
    )
    lengths = np.asarray(weights) * np.sqrt(np.diag(gram))
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_every_name_in_the_tables_of_parts_exists():
    """The pages list exactly the public parts of each package."""
    import flax.linen as nn

    from mmjax import auxiliary, balance, encoders, fusion, heads, sharing

    pages = {
        "building_blocks": (encoders, fusion, sharing, heads, auxiliary),
        "balancing": (balance,),
    }
    for page, packages in pages.items():
        text = (ROOT / "docs" / f"{page}.md").read_text()
        for package in packages:
            for name in package.__all__:
                member = getattr(package, name)
                is_part = isinstance(member, type) and issubclass(member, nn.Module)
                is_balancer = package is balance and not re.match("[A-Z]|from_|to_", name)
                if is_part or is_balancer:
                    assert f"`{name}`" in text, f"{package.__name__}.{name} is not in {page}.md"


def test_the_readme_counts_the_parts():
    """The numbers of encoders, fusions, ... and of balancers are those of the pages' tables."""
    rows = (ROOT / "docs" / "building_blocks.md").read_text()
    readme = README.read_text()
    for kind, word in {"encoders": "encoders", "fusion": "fusions", "heads": "heads"}.items():
        (row,) = re.findall(rf"^\| {kind} \| (.*) \|$", rows, re.M)
        count = len(re.findall(r"`[A-Z]\w+`", row))
        assert f"{count} {word}" in readme
    table = (ROOT / "docs" / "balancing.md").read_text().split("The Gramian methods")[0]
    balancers = re.findall(r"`(\w+)`", table)
    assert f"{len(balancers)} methods on losses" in readme


def test_the_readme_counts_the_experiments():
    """All files are in the page's table; the README counts them, and the tutorials apart."""
    table = (ROOT / "docs" / "experiments.md").read_text()
    listed = re.findall(r"\[(\w+)\]\(\.\./experiments/\1\.py\)", table)
    files = {path.stem for path in ROOT.glob("experiments/*.py")} - {"package_data"}
    assert sorted(listed) == sorted(files)
    count = sum(not name.startswith("tutorial_") for name in files)
    assert f"{count} experiment and study files" in README.read_text()


@pytest.mark.slow
def test_the_page_on_weights_and_sampling_runs(tmp_path):
    path = tmp_path / "weights_and_sampling.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "weights_and_sampling.md", "python")))
    page = runpy.run_path(str(path))
    fitted = mmjax.fit(page["experiment"], tmp_path / "run")
    assert fitted.test[0]["kind/accuracy"] > 0.5


@pytest.mark.slow
def test_the_page_on_predicting_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    path = tmp_path / "predicting.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "predicting.md", "python")))
    page = runpy.run_path(str(path))
    assert page["predictions"]["kind"].names == ["cat", "dog"]
    assert page["predictions"].keys == {"id": [7, 8]}


@pytest.mark.slow
def test_the_page_on_robustness_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    path = tmp_path / "robustness.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "robustness.md", "python")))
    page = runpy.run_path(str(path))
    assert {s.modality for s in page["summaries"]} == {"a", "b", "all"}
    assert [c.subset for c in page["calibrations"]] == ["a+b", "a", "b"]


@pytest.mark.slow
def test_the_page_on_freezing_runs(tmp_path):
    from mmjax.train.checks.experiment_check import check_experiment

    path = tmp_path / "freezing.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "freezing.md", "python")))
    page = runpy.run_path(str(path))
    check_experiment(page["experiment"], 1)
    assert page["lora"].popitem()[1].scale == 2


@pytest.mark.slow
def test_the_page_on_memory_runs(tmp_path):
    from mmjax.train.checks.memory_check import check_remat

    path = tmp_path / "memory.py"
    path.write_text("\n\n".join(find_blocks(ROOT / "docs" / "memory.md", "python")))
    model, images = runpy.run_path(str(path))["model"], np.zeros((2, 8, 8, 1), np.float32)
    present = {"image": np.ones(2, bool)}
    variables = model.init(jax.random.key(0), {"image": images}, present, {}, train=False)
    check_remat(model.remat, variables["params"])
