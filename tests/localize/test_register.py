"""Photographs in a job's other models are not new to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.posed_job import posed_job
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.colmap.poses import load_model
from romacli.mapping.incremental import write_model


def test_photographs_of_other_models_stay_there(tmp_path: Path) -> None:
    job = posed_job(tmp_path)
    largest = job.layout.sparse / "0"
    shutil.copytree(largest, job.layout.sparse / "1")
    model = load_model(largest)
    for frame in [image.frame_id for image in model.images.values() if image.name in ("3.png", "4.png")]:
        model.deregister_frame(frame)
    shutil.rmtree(largest)
    write_model(model, largest)
    result = CliRunner().invoke(app, ["register", str(job.photographs), "-o", str(job.layout.root)])
    assert result.exit_code == 0, result.stderr
    assert "the largest of 2 models" in result.stderr
    assert "are in a model" in result.stderr
