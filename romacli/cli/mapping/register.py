"""`romacli register`: add new photographs to a finished model."""

from __future__ import annotations

from dataclasses import asdict

from romacli.cli.console import Console, stopping
from romacli.cli.matching.match import match_values, raise_failures
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError
from romacli.job.options import JobOptions
from romacli.localize.options import RegisterOptions
from romacli.words import counted, first_few


@takes(JobOptions, RegisterOptions, TalkOptions, example="romacli register photos/ -o job")
def register(options: JobOptions, asked: RegisterOptions, talk: TalkOptions) -> None:
    """Add photographs to a finished model by matching, posing and triangulating them; the rest of the model is kept.

    IMAGES contains the job's photographs and the new ones, or is a folder of new ones inside theirs. Each new one is
    matched with the most similar photographs, or by --pairs or --pairing. Keypoints, ids and the frame of the model are
    kept. Photographs in the job's other models stay there; to add to one of these, give its folder, such as
    OUT/sparse/1, as --output. Run the same command again to resume, and to retry photographs without a pose.
    """
    from romacli.localize.register import register as run
    from romacli.store.layout import about_other_models, layout_of

    layout = layout_of(options.output)
    with stopping() as stop, Console(talk) as console:
        if others := about_other_models(layout):
            console.say(others)
        found = run(options, asked, console, stop)
        values = {
            "added": list(found.added),
            "without": list(found.without),
            "model": asdict(found.model) if found.model else None,
            "matching": match_values(found.matched) if found.matched else None,
        }
        points = f", {counted(found.model.points3D, 'point')}" if found.model else ""
        told = f"{counted(len(found.added), 'photograph')} added{points}; see {layout.model}"
        console.result(values, told)
        if found.matched:
            raise_failures(found.matched, layout)
        if found.without:
            raise PartialError(
                f"{counted(len(found.without), 'photograph sees', 'photographs see')} too little of the model to be "
                f"posed: {first_few(found.without)}. Match with more of the model's photographs."
            )
