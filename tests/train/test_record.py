from __future__ import annotations

import pytest

from romacli.errors import InputError
from romacli.train.record import append_row


def test_each_figure_has_its_column_and_new_ones_are_added(tmp_path):
    path = tmp_path / "run.csv"
    append_row(path, {"step": 1, "loss": 2.5})
    append_row(path, {"step": 2, "loss": 2.0, "pck3": 0.5})
    append_row(path, {"step": 3, "loss": 1.5})
    assert path.read_text() == "step,loss,pck3\n1,2.5,\n2,2.0,0.5\n3,1.5,\n"
    assert [file.name for file in tmp_path.iterdir()] == ["run.csv"]


def test_file_that_is_no_log_is_left_alone(tmp_path):
    path = tmp_path / "run.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"run\.csv is not a log of a training"):
        append_row(path, {"step": 1})
    assert path.read_bytes() == b"\xff\xfe\x00"
