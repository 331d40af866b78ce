"""The command that makes fictitious data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    source: Annotated[
        Path, typer.Argument(help="A data folder (docs/data.md); for long-form tasks also JSONL: subject, text.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to; `harness run --fictitious FOLDER` reads it.")],
    task: Annotated[str, typer.Option(help="popqa (with grounding), hotpotqa, persons or medical.")] = "popqa",
    judge: Annotated[str, typer.Option(help="What writes: rules, openai:MODEL, local:PATH-or-id.")] = "rules",
    entities: Annotated[int, typer.Option(help="Fictitious subjects (hotpotqa: questions) to train on.")] = 500,
    versions: Annotated[
        int | None, typer.Option(help="Contradicting versions of each. Default: 1 of questions, 5 of long answers.")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Unseen subjects of two versions, for table 2.")] = 100,
    real: Annotated[int, typer.Option(help="Real training rows that get knowledge texts, too.")] = 500,
    paraphrases: Annotated[int, typer.Option(help="Statements of each fact; half as many passages.")] = 4,
    seed: Annotated[int, typer.Option(help="The run's --seed: it draws the split and everything else.")] = 0,
    knowledge: Annotated[
        Path | None, typer.Option(help="A knowledge source: no subject may be one of its titles.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint. Default: $OPENAI_BASE_URL.")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests in flight at once.")] = 128,
    structured: Annotated[str, typer.Option(help="auto, json_schema, guided or off.")] = "auto",
    max_cost: Annotated[float | None, typer.Option(help="Stop cleanly at so many dollars.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Stop cleanly after so many calls.")] = None,
    prices: Annotated[list[Path] | None, typer.Option(help="A TOML file of further prices.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where replies are kept. Default: under HARNESS_HOME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and money; send nothing.")] = False,
) -> None:
    """Make fictitious entities, contradicting versions, knowledge texts and task answers from real data; check them."""
    from rich.console import Console

    from factscore_mod.judges import JudgeOptions
    from harness.cli_scoring import one_of
    from harness.paths import home
    from harness.synthesize.command import VERSIONS, SynthesizeOptions, synthesize
    from harness.synthesize.rules import Sizes

    one_of("--structured", structured, ("auto", "json_schema", "guided", "off"))
    one_of("--task", task, tuple(VERSIONS))
    engine = JudgeOptions(base_url=base_url, concurrency=concurrency, structured=structured)  # type: ignore[arg-type]
    made = synthesize(
        SynthesizeOptions(
            source=source,
            out=out,
            task=task,
            judge=judge,
            sizes=Sizes(
                entities=entities,
                versions=VERSIONS[task] if versions is None else versions,
                held_out=held_out,
                real=real,
                paraphrases=paraphrases,
            ),
            seed=seed,
            knowledge=knowledge,
            engine=engine,
            cache=cache or home() / "judge_cache.sqlite",
            max_cost=max_cost,
            max_calls=max_calls,
            prices=tuple(prices or ()),
            dry_run=dry_run,
        )
    )
    console = Console(width=120, highlight=False, markup=False, soft_wrap=True)
    for counts in made.counts.values():
        for file, rows in counts.items():
            console.print(f"{rows:,} rows in {out / file}")
    for name, sizes in made.sizes.items():
        for size in sizes:
            if size.made < size.asked:
                console.print(size.line(name))
    for one in made.checks:
        console.print(one.line())
    for reason, count in sorted(made.left_out.items()):
        console.print(f"left out: {count:,} times {reason}")
    if judge != "rules":
        spent = made.spent
        dollars = "price not known" if spent.dollars is None else f"${spent.dollars:.4f}"
        verb = "calls would be sent" if dry_run else "calls sent"
        console.print(
            f"{spent.calls:,} {verb}, {spent.cached:,} from the cache, {spent.prompt_tokens:,} tokens in and "
            f"{spent.completion_tokens:,} out, {dollars}"
        )
    elif dry_run:
        console.print("nothing is sent: the rules ask no model")
