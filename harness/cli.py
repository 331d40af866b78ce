"""The command line: arguments only, one function a command. Nothing heavy is imported here."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import __version__
from harness.cli_scoring import add_commands
from harness.cli_synthesize import synthesize

if TYPE_CHECKING:
    from harness.run_options import RunOptions

app = typer.Typer(
    name="harness",
    help="Measure, and reduce, how often language models make things up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
add_commands(app)
app.command()(synthesize)

Suite = Annotated[str, typer.Option(help="Which tasks: a name that `harness list` shows.")]
PresetName = Annotated[
    str | None,
    typer.Option(help="The scale: tiny, mini, smol, llama3-8b, or a .toml file. Default: smol with a GPU, else mini."),
]
Models = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated models, by default the suite's or preset's; `base` is in, unless all are served."
    ),
]
Seeds = Annotated[int, typer.Option(help="How many worlds; they are pooled, with intervals over them.")]
Seed = Annotated[int, typer.Option(help="The first world's seed; it drives everything.")]
BaseSeed = Annotated[int | None, typer.Option(help="Seed of the base's pre-training, where it is to differ.")]
TrainingSeed = Annotated[int | None, typer.Option(help="Seed of fine-tuning, where it is to differ.")]
Variant = Annotated[str | None, typer.Option(help="Of the miniature: familiar or unfamiliar prompts.")]
Limit = Annotated[int | None, typer.Option(help="At most so many test items a task.")]
Data = Annotated[Path | None, typer.Option(help="A data folder (docs/data.md). Default: $HARNESS_DATA, else the hub.")]
Fictitious = Annotated[
    Path | None, typer.Option(help="What `harness synthesize` made. Default: fictitious/ in the data folder.")
]
Base = Annotated[str | None, typer.Option(help="Another base model: a folder or a hub id.")]
Adapter = Annotated[
    list[str] | None, typer.Option(help="NAME=PATH: score a ready adapter too; {task} in PATH is replaced.")
]
ModelsFile = Annotated[Path | None, typer.Option(help="A TOML file of [models.NAME] tables.")]
Backend = Annotated[
    str | None, typer.Option(help="What generates: transformers, vllm, or openai where all models are served.")
]
BaseUrl = Annotated[
    str | None, typer.Option(help="Where models named openai:NAME are served. Default: $OPENAI_BASE_URL.")
]
Judge = Annotated[str | None, typer.Option(help="What judges claims: rules, openai:MODEL, local:PATH, nli:PATH.")]
Teacher = Annotated[
    str | None, typer.Option(help="Whose answers sft_gpt learns from: openai:MODEL, file:ANSWERS.jsonl, or a model.")
]
Tune = Annotated[bool, typer.Option("--tune", help="Give every method the same tuning budget on validation rows.")]
MatchUpdates = Annotated[
    bool, typer.Option("--match-updates", help="Train every method for as many updates as PREREQ-TUNE's skill stage.")
]
Only = Annotated[str | None, typer.Option(help="Comma-separated ablations of the suite; all of them by default.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Let a base run code of its own; recorded.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Measure, and reduce, how often language models make things up."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    suite: Suite = "longform",
    preset: PresetName = None,
    models: Models = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    base_seed: BaseSeed = None,
    training_seed: TrainingSeed = None,
    variant: Variant = None,
    limit: Limit = None,
    data: Data = None,
    fictitious: Fictitious = None,
    base: Base = None,
    adapter: Adapter = None,
    models_file: ModelsFile = None,
    backend: Backend = None,
    base_url: BaseUrl = None,
    judge: Judge = None,
    teacher: Teacher = None,
    tune: Tune = False,
    match_updates: MatchUpdates = False,
    only: Only = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/ID, the same for equal runs.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue what an earlier run left.")] = True,
    workers: Annotated[
        int | None, typer.Option(help="Jobs at a time. Default: one a GPU (or as many as an engine takes), or a core.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where jobs run: processes of this machine, or ray (docs/scaling.md).")
    ] = "processes",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the table.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Train what is missing, generate, score and write leaderboard, curves and report."""
    words = locals()
    from rich.console import Console

    from harness.executor import check_executor
    from harness.options import default_preset, has_gpu
    from harness.pipeline import execute, run_id
    from harness.progress import Display
    from harness.reports import leaderboard
    from harness.store import RunFolder

    check_executor(executor)
    options = _resolve(words)
    # Progress goes to standard error, so that standard output holds the table or the JSON and nothing else.
    notes = Console(stderr=True, quiet=quiet or as_json)
    why = "" if preset else (" (a GPU is here)" if has_gpu() else " (no GPU here)")
    section = options.preset.preset
    notes.print(
        f"preset [bold]{preset or default_preset()}[/bold]{why}: {section.description}; "
        f"{len(options.suite.tasks)} tasks, {len(options.suite.ablations)} ablations, "
        f"{len(options.models)} models, {seeds} world{'s' * (seeds > 1)}. The first default longform run of "
        f"this preset takes about {section.minutes:g} min ({section.machine}); `harness plan` with the options given "
        "here says what this run takes.",
        highlight=False,
    )
    folder = RunFolder(out or Path("runs") / run_id(options))
    folder.check(options.fingerprint(), resume)
    display = Display(notes, quiet or as_json)
    with display:
        result = execute(options, folder, _command(), display.listen, display.announce, workers, executor)
    if as_json:
        typer.echo((folder.path / "metrics.json").read_text(encoding="utf-8"), nl=False)
        return
    out_console = Console() if sys.stdout.isatty() else Console(width=120)
    for table in leaderboard.tables(result.summary):
        out_console.print(table)
    for study in result.ablations:
        out_console.print(f"{study.title}: {study.summary}", highlight=False, markup=False)
    out_console.print(f"{result.seconds:.0f} s. Everything is in {folder.path}/", highlight=False, soft_wrap=True)


@app.command()
def validate(
    suite: Suite = "longform",
    preset: PresetName = None,
    models: Models = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    variant: Variant = None,
    limit: Limit = None,
    data: Data = None,
    fictitious: Fictitious = None,
    base: Base = None,
    adapter: Adapter = None,
    models_file: ModelsFile = None,
    backend: Backend = None,
    base_url: BaseUrl = None,
    judge: Judge = None,
    teacher: Teacher = None,
    tune: Tune = False,
    match_updates: MatchUpdates = False,
    only: Only = None,
) -> None:
    """Check everything a run would need, before spending anything; prints all problems at once."""
    words = locals()
    from harness.errors import Problems
    from harness.options import check, read

    options, problems = read(**_of_run(words))
    if options is not None:
        problems += check(options, problems)
    if problems:
        raise Problems(problems)
    typer.echo("ready to run")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run folder.")],
    second: Annotated[
        Path | None, typer.Argument(help="Another run folder; left out, two models of the first are compared.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What to compare. Default: each task's headline.")] = None,
    models: Annotated[
        str | None, typer.Option(help="A,B: model A of the first run against B of the second. Default: equal names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Compare two runs, or two models of one, on the items that both answered: differences, p-values, power."""
    from rich.console import Console

    from harness.compare import compare_runs, read_run, table, to_json
    from harness.errors import UserError

    names = [name.strip() for name in models.split(",")] if models else []
    if models and (len(names) != 2 or not all(names)):
        raise UserError(f"--models: '{models}' is not of the form A,B")
    if second is None and not names:
        raise UserError("give a second run folder, or two models of the first with --models A,B")
    one = read_run(first)
    other = read_run(second) if second else one
    rows = compare_runs(one, other, metric=metric, models=(names[0], names[1]) if names else None)
    if as_json:
        typer.echo(to_json(one, other, rows), nl=False)
        return
    (Console() if sys.stdout.isatty() else Console(width=160)).print(table(one, other, rows))


@app.command()
def plan(
    suite: Suite = "longform",
    preset: PresetName = None,
    models: Models = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    base_seed: BaseSeed = None,
    training_seed: TrainingSeed = None,
    variant: Variant = None,
    limit: Limit = None,
    data: Data = None,
    fictitious: Fictitious = None,
    base: Base = None,
    adapter: Adapter = None,
    models_file: ModelsFile = None,
    backend: Backend = None,
    base_url: BaseUrl = None,
    judge: Judge = None,
    teacher: Teacher = None,
    tune: Tune = False,
    match_updates: MatchUpdates = False,
    only: Only = None,
    device: Annotated[str | None, typer.Option(help="Whose hours are estimated: h100, h200, a100 or cpu.")] = None,
    mfu: Annotated[float, typer.Option(help="The share of the device's peak that training reaches.")] = 0.35,
    download: Annotated[bool, typer.Option("--download", help="Fetch data that are not here, to count them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what a run would train and ask: rows, updates, tokens, hours, memory, disk and money. Starts nothing."""
    words = locals()
    from rich.console import Console

    from harness.estimate import assumed, estimate
    from harness.reports.estimate import remarks, tables

    options = _resolve(words)
    made = estimate(options, assumed(options, device, mfu), download=download)
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=2))
        return
    console = Console() if sys.stdout.isatty() else Console(width=140)
    for table in tables(made):
        console.print(table)
    for remark in remarks(made):
        console.print(remark, highlight=False, markup=False)


@app.command()
def doctor(
    suite: Suite = "longform",
    preset: PresetName = None,
    models: Models = None,
    data: Data = None,
    fictitious: Fictitious = None,
    base: Base = None,
    backend: Backend = None,
    judge: Judge = None,
    teacher: Teacher = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Look at Python, packages, GPU, data, keys and disk: what works, what does not, and what to do about it.

    Leaves with status 0 when the run (by default the default one) can start, else with 2.
    """
    words = {name: word for name, word in locals().items() if name != "as_json" and word is not None}
    from rich.console import Console

    from harness.doctor import examine, ready, table, to_json

    findings = examine(**words)
    if as_json:
        typer.echo(json.dumps(to_json(findings), indent=2))
    else:
        (Console() if sys.stdout.isatty() else Console(width=140)).print(table(findings))
    if not ready(findings):
        raise typer.Exit(2)


@app.command(name="list")
def list_names(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show models, methods, tasks, suites, ablations, presets, judges and backends."""
    from rich.console import Console
    from rich.table import Table

    from harness.ablations.ablation import ABLATIONS
    from harness.config import load_preset, preset_names
    from harness.registry import BACKENDS, JUDGES, METHODS, MODELS, TASKS, suites

    listing: dict[str, dict[str, str]] = {
        "models": {model.name: model.title for model in MODELS},
        "methods": {method.name: f"{method.title}: {method.reference}" for method in METHODS},
        "tasks": {task.name: f"{task.title} ({task.metric})" for task in TASKS},
        "suites": {suite.name: f"{suite.title}: {', '.join(suite.tasks)}".rstrip(": ") for suite in suites().values()},
        "ablations": {study.name: f"{study.title} ({study.paper})" for study in ABLATIONS},
        "presets": {name: load_preset(name).preset.description for name in preset_names()},
        "judges": JUDGES,
        "backends": BACKENDS,
    }
    if as_json:
        typer.echo(json.dumps(listing, indent=2))
        return
    table = Table(box=None, show_header=False)
    for noun, entries in listing.items():
        for position, (name, meaning) in enumerate(entries.items()):
            table.add_row(f"[bold]{noun}[/bold]" if position == 0 else "", name, meaning)
    (Console() if sys.stdout.isatty() else Console(width=140)).print(table)


def _resolve(words: dict[str, Any]) -> RunOptions:
    """The options of a run from the arguments of its command, by name."""
    from harness.options import resolve

    return resolve(**_of_run(words))


def _of_run(words: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command that are a run's, by the names that they have there."""
    from inspect import signature

    from harness.options import resolve

    named = words | {"worlds": words["seeds"], "adapters": words.get("adapter") or ()}
    return {name: named[name] for name in signature(resolve).parameters if name in named}


def _command() -> str:
    """The command as typed, without the path of the program."""
    return shlex.join(["harness", *sys.argv[1:]])


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: what the user can mend ends in one message and exit status 2."""
    try:
        return app(args=arguments)
    except ValueError as error:
        # Every floor's own ValueErrors are for users; one from elsewhere is a fault in the code.
        if type(error).__module__.split(".")[0] not in ("harness", "factscore_mod", "baselines", "train"):
            raise
        typer.echo(f"harness: {error}" if "\n" not in str(error) else f"harness:\n{error}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
