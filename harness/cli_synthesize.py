"""The command that makes fictitious data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    source: Annotated[Path, typer.Argument(help="A data folder (docs/data.md).")],
    out: Annotated[Path, typer.Option(help="The folder to write to; `harness run --fictitious FOLDER` reads it.")],
    task: Annotated[str, typer.Option(help="popqa (with grounding).")] = "popqa",
    judge: Annotated[str, typer.Option(help="What writes: rules.")] = "rules",
    entities: Annotated[int, typer.Option(help="Fictitious subjects to train on.")] = 500,
    versions: Annotated[int, typer.Option(help="Contradicting versions of each.")] = 1,
    held_out: Annotated[int, typer.Option(help="Unseen subjects of two versions, for table 2.")] = 100,
    real: Annotated[int, typer.Option(help="Real training rows that get knowledge texts, too.")] = 500,
    paraphrases: Annotated[int, typer.Option(help="Statements of each fact; half as many passages.")] = 4,
    seed: Annotated[int, typer.Option(help="The run's --seed: it draws the split and everything else.")] = 0,
    knowledge: Annotated[
        Path | None, typer.Option(help="A knowledge source: no subject may be one of its titles.")
    ] = None,
) -> None:
    """Make fictitious entities, contradicting versions, knowledge texts and task answers from real rows; check them."""
    from rich.console import Console

    from harness.synthesize.command import SynthesizeOptions, synthesize
    from harness.synthesize.rules import Sizes

    made = synthesize(
        SynthesizeOptions(
            source=source,
            out=out,
            task=task,
            judge=judge,
            sizes=Sizes(entities=entities, versions=versions, held_out=held_out, real=real, paraphrases=paraphrases),
            seed=seed,
            knowledge=knowledge,
        )
    )
    console = Console(width=120, highlight=False, markup=False)
    for name, counts in made.counts.items():
        for file, rows in counts.items():
            console.print(f"{name}: {rows:,} rows in {out / file}", soft_wrap=True)
    for one in made.checks:
        console.print(one.line(), soft_wrap=True)
