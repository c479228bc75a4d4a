"""The made-up study's report, written once for all tests that look at it."""

import pytest

from tests.report import synthetic


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """The directory of the made-up study with its report."""
    from mmjax.report.write_report import write_report

    directory = synthetic.write_study(tmp_path_factory.mktemp("study"))
    write_report(directory)
    return directory
