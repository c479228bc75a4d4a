"""Arguments and tables that new users give: refused with what to write instead."""

import zipfile

import jaxtyping
import pytest

from mmjax.data import Label, Numbers, Spans, from_table

CELLS = {"x": [i / 7 for i in range(20)], "y": ["a", "b"] * 10}
REFUSED = [
    ({"inputs": ["x"]}, r"inputs is a list, \['x'\]; it must be {modality: column or kind}"),
    ({"targets": "y"}, r"targets is a str, 'y'; it must be {task: column or kind}"),
    ({"inputs": {"p": ["x"]}}, r"inputs\['p'\] is \['x'\]; it must be the name of a column"),
    ({"inputs": {"p": Numbers}}, r"inputs\['p'\] is <class .*; .*such as Numbers\('column'\)"),
    ({"inputs": {"p": Label("x")}}, r"inputs\['p'\] is Label\(column='x'"),
    ({"targets": {"y": Label("y", classes="ab")}}, r"targets\['y'\] has the classes 'ab'; give a"),
]


@pytest.fixture
def unchecked_types():
    """Turns the types off, which would refuse such arguments without a fix."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=range(len(REFUSED)))
def test_wrong_arguments_are_refused_with_the_right_ones(arguments, message):
    arguments = {"inputs": {"p": "x"}, "targets": {"y": "y"}} | arguments
    with pytest.raises(ValueError, match=message):
        from_table(CELLS, **arguments)


def test_files_that_are_no_tables_are_refused_by_their_format(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv", "w") as archive:
        archive.writestr("inside.csv", "x,y\n1,a\n")
    with pytest.raises(ValueError, match=r"t\.csv is a zip archive or an Excel file; unpack it"):
        from_table(tmp_path / "t.csv", {"p": "x"}, {"y": "y"})
    (tmp_path / "t.json").write_text('[{"x": 1, "y": "a"}]')
    with pytest.raises(ValueError, match=r"no column 'x'.* It looks like JSON; give the DataFrame"):
        from_table(tmp_path / "t.json", {"p": "x"}, {"y": "y"})


def test_cells_without_order_or_sequence_are_refused():
    sets = {**CELLS, "s": [{"a"}, {"a", "b"}] * 10}
    with pytest.raises(ValueError, match=r"column 's' of modality 'p' holds sets, which have no"):
        from_table(sets, {"p": "s"}, {"y": "y"})
    vectors = {**CELLS, "v": [[1.0, 2.0]] * 19 + [[1.0]]}
    with pytest.raises(ValueError, match=r"shape \(1,\), but \(2,\) at [^`]*$"):
        from_table(vectors, {"p": "v"}, {"y": "y"})
    names = {**CELLS, "t": ["Ada is"] * 20, "n": ['[[0, 3, "PER"]]'] * 20}
    with pytest.raises(ValueError, match="no input is a sequence; add the text"):
        from_table(names, {"p": "x"}, {"who": Spans(("n", "t"))})
