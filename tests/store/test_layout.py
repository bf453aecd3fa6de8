from __future__ import annotations

from pathlib import Path

from romacli.store.layout import Layout


def test_every_file_lies_directly_under_the_root_with_its_own_name():
    layout = Layout(Path("OUT"))
    paths = [
        layout.manifest,
        layout.pairs,
        layout.journal,
        layout.features,
        layout.matches,
        layout.database,
        layout.sparse,
    ]
    assert {path.parent for path in paths} == {Path("OUT")}
    assert len({path.name for path in paths}) == 7
