"""The F1 of each class in a report, from the files that every arm has."""

import csv

import numpy as np
from sklearn.metrics import f1_score

from mmjax.data.dataset import Task
from mmjax.report import study_files
from mmjax.report.class_tables import make_class_tables
from mmjax.report.render import render_csv
from mmjax.train.reporting.class_report import write_class_reports
from tests.report import synthetic


def test_a_report_has_the_f1_of_each_class_of_every_arm(tmp_path):
    study = synthetic.write_study(tmp_path, singles=False, failed=())
    record, rng, expected = study_files.read_study(study), np.random.default_rng(0), {}
    tasks = {"digit": Task("sequence", ("a", "b")), "many": Task("sequence", ())}
    for arm in list(record.arms)[:3]:
        target, predicted = rng.integers(0, 2, (2, 50))
        hits = [np.bincount(target[target == predicted], minlength=2)]
        hits += [np.bincount(x, minlength=2) - hits[0] for x in (predicted, target)]
        counts = dict(zip(("tp", "fp", "fn"), hits, strict=True))
        many = dict.fromkeys(counts, np.ones(13))
        write_class_reports(study / "arms" / arm / "test", tasks, [{"digit": counts, "many": many}])
        expected[arm] = f1_score(target, predicted, average=None)
    [table] = make_class_tables(record, study)
    header, *rows = csv.reader(render_csv(table).splitlines())
    assert table.title == "F1 of each class of digit" and header == ["fusion", "balancer", "a", "b"]
    for row, (arm, scores) in zip(rows, expected.items(), strict=True):
        assert "-".join(row[:2]) == arm
        np.testing.assert_allclose([float(x) for x in row[2:]], scores, atol=5e-4)


def test_without_files_there_is_no_table(tmp_path):
    study = synthetic.write_study(tmp_path, singles=False)
    assert make_class_tables(study_files.read_study(study), study) == []
