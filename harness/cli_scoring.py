"""The commands of `factscore_mod`: score a file, build a knowledge source, calibrate a judge, serve a mock judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import UserError

if TYPE_CHECKING:
    from factscore_mod.command import ScoreOptions
    from factscore_mod.records import ScoredResponse

knowledge_app = typer.Typer(help="Knowledge sources: what claims are verified against.", no_args_is_help=True)

Judge = Annotated[str, typer.Option(help="rules, openai:MODEL, local:PATH-or-id, nli:PATH-or-id, mock.")]
Decomposer = Annotated[str | None, typer.Option(help="A judge for decomposition alone.")]
Verifier = Annotated[str | None, typer.Option(help="A judge for verification alone.")]
BaseUrl = Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint. Default: $OPENAI_BASE_URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Mount the commands of this file."""
    app.command()(score)
    app.command()(calibrate)
    app.command(name="mock-judge")(mock_judge)
    app.add_typer(knowledge_app, name="knowledge")


def score(
    generations: Annotated[Path, typer.Argument(help="JSONL or CSV with `topic` and `output`, or a dataset folder.")],
    knowledge: Annotated[Path, typer.Option(help="A knowledge source (`harness knowledge build`) or FActScore's .db.")],
    judge: Judge = "rules",
    decomposer: Decomposer = None,
    verifier: Verifier = None,
    profile: Annotated[str, typer.Option(help="modified (ours) or factscore (the published algorithm).")] = "modified",
    retrieval: Annotated[str, typer.Option(help="bm25, embedding or hybrid.")] = "bm25",
    embedder: Annotated[
        str | None,
        typer.Option(help="The sentence-transformers model of embedding and hybrid. Default: the profile's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to. Default: the input's name + .scored.")
    ] = None,
    use_claims: Annotated[bool, typer.Option("--use-claims", help="Judge the claims that the rows bring.")] = False,
    limit: Annotated[int | None, typer.Option(help="Score the first rows only.")] = None,
    base_url: BaseUrl = None,
    concurrency: Annotated[int, typer.Option(help="Requests in flight at once.")] = 128,
    structured: Annotated[str, typer.Option(help="auto, json_schema, guided or off.")] = "auto",
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Keep the probability of each verdict.")] = False,
    max_cost: Annotated[float | None, typer.Option(help="Stop cleanly at so many dollars.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Stop cleanly after so many calls.")] = None,
    prices: Annotated[list[Path] | None, typer.Option(help="A TOML file of further prices.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where replies are kept. Default: under HARNESS_HOME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and money; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score long-form generations claim by claim; repeating the command sends nothing that was answered."""
    from rich.console import Console

    from factscore_mod.command import ScoreOptions, estimate_file
    from factscore_mod.judges import JudgeOptions
    from harness.paths import home

    one_of("--profile", profile, ("modified", "factscore"))
    one_of("--retrieval", retrieval, ("bm25", "embedding", "hybrid"))
    if embedder is not None and retrieval == "bm25":
        raise UserError("--embedder: bm25 uses no embedding model; add --retrieval embedding or --retrieval hybrid")
    one_of("--structured", structured, ("auto", "json_schema", "guided", "off"))
    store = cache or home() / "judge_cache.sqlite"
    store.parent.mkdir(parents=True, exist_ok=True)
    options = ScoreOptions(
        judge=judge,
        decomposer=decomposer,
        verifier=verifier,
        profile=profile,
        retrieval=retrieval,  # type: ignore[arg-type]
        embedder=embedder,
        use_claims=use_claims,
        limit=limit,
        cache=store,
        max_cost=max_cost,
        max_calls=max_calls,
        prices=tuple(prices or ()),
        engine=JudgeOptions(
            base_url=base_url,
            concurrency=concurrency,
            structured=structured,  # type: ignore[arg-type]
            logprobs=logprobs,
        ),
    )
    if dry_run:
        _print_rows(
            ("stage", "calls", "in the cache", "tokens in", "tokens out", "dollars"),
            estimate_file(generations, knowledge, options).rows(),
        )
        return
    folder = out or generations.with_name(generations.name + ".scored")
    result = _score_with_progress(generations, knowledge, folder, options, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(result.metrics, indent=2, sort_keys=True))
        return
    rows = []
    intervals = result.metrics.get("intervals", {})
    for label, value, over in result.rows():
        low_high = intervals.get(_INTERVAL_OF.get(label, ""))
        shown = f"{value} [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else value
        rows.append((label, shown, over))
    _print_rows(("metric", "value [95 %, clustered by response]", "over"), rows)
    console = Console(width=120, highlight=False)
    console.print(f"{result.sent} calls sent, {result.cached} from the cache, ${result.dollars:.4f}. In {folder}/")
    if result.stopped:
        console.print(f"Stopped: {result.stopped} The same command goes on from here.")


_INTERVAL_OF = {
    "accuracy (macro)": "accuracy",
    "accuracy (macro, abstention = 0)": "accuracy_abstention_zero",
    "accuracy (micro)": "accuracy_micro",
    "claims a response": "claims",
    "response rate": "response_rate",
}


def _score_with_progress(generations: Path, knowledge: Path, out: Path, options: ScoreOptions, quiet: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from factscore_mod.command import score_file

    console = Console(stderr=True)
    with Progress(
        TextColumn("score"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[spent]}"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bars:
        bar = bars.add_task("score", total=None, spent="")

        def progress(done: int, total: int, calls: int, dollars: float) -> None:
            bars.update(bar, completed=done, total=total, spent=f"{calls} calls, ${dollars:.4f}")

        return score_file(generations, knowledge, out, options, progress=progress, intervals=_intervals)


def _intervals(scored: Sequence[ScoredResponse]) -> dict[str, Any]:
    """95 % intervals of the metrics, clustered by response."""
    from harness.metrics.longform import from_scored
    from harness.metrics.summary import summarise_longform
    from harness.records import Item, Response

    records = [
        from_scored(
            one,
            Item(task="score", id=one.id, prompt="", subject=one.id),
            Response("score", one.id, "given", 0, one.text, 0, "stop"),
            0,
        )
        for one in scored
    ]
    estimates = summarise_longform(records, ())
    return {
        name: [estimate.low, estimate.high]
        for name, estimate in estimates.items()
        if estimate.low is not None and estimate.high is not None
    }


@knowledge_app.command()
def build(
    source: Annotated[
        str, typer.Argument(help="JSONL, a dataset folder or name, a MediaWiki dump, or FActScore's .db.")
    ],
    out: Annotated[Path, typer.Option(help="The knowledge source to write.")],
    passage_words: Annotated[int, typer.Option(help="About so many words a passage, cut between sentences.")] = 256,
    split: Annotated[str, typer.Option(help="Of a dataset.")] = "train",
) -> None:
    """Cut articles into passages and index them; goes on where a killed build stopped."""
    from rich.console import Console

    from factscore_mod.knowledge_readers import build_from

    console = Console(stderr=True, highlight=False)
    with console.status("reading") as status:
        report = build_from(
            source,
            out,
            passage_words=passage_words,
            split=split,
            progress=lambda documents: status.update(f"{documents:,} articles"),
        )
    resumed = f" ({report.resumed_at:,} were there already)" if report.resumed_at else ""
    typer.echo(
        f"{report.documents:,} articles{resumed}, {report.passages:,} passages, {report.redirects:,} redirects "
        f"in {report.seconds:.1f} s; passed over: {report.duplicates:,} repeated titles, {report.empty:,} empty. "
        f"In {report.path}"
    )


@knowledge_app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A knowledge source.")],
    topic: Annotated[str, typer.Argument(help="A title to look up.")],
) -> None:
    """Show how a topic is resolved and the passages that are found."""
    from factscore_mod.knowledge import KnowledgeSource

    source = KnowledgeSource.open(path)
    resolution = source.resolve(topic)
    typer.echo(f"{topic}: {resolution.found}" + (f", {resolution.title}" if resolution.title else ""))
    for passage in source.passages(resolution.title) if resolution.title else ():
        typer.echo(f"\n[{passage.index}] {passage.text}")


def calibrate(
    data: Annotated[Path, typer.Option(help="A folder of labelled sets (docs/data.md).")],
    judge: Judge = "rules",
    sets: Annotated[str | None, typer.Option(help="Comma-separated; all by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many items a set, drawn at random.")] = None,
    profile: Annotated[str, typer.Option(help="Of a model judge: modified (ours) or factscore.")] = "modified",
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Measure a judge on human labels."""
    from factscore_mod.calibration import calibrate as measure
    from factscore_mod.judges import JudgeOptions, make_judge
    from factscore_mod.profiles import get_profile

    made = make_judge(judge, profile=get_profile(profile), options=JudgeOptions(base_url=base_url))
    results = measure(
        data,
        made.verifier,
        decomposer=made.decomposer,
        sets=[name.strip() for name in sets.split(",")] if sets else None,
        limit=limit,
    )
    if as_json:
        for result in results:
            typer.echo(json.dumps(result.to_json()))
        return
    _print_rows(
        ("set", "n", "balanced accuracy", "kappa", "AUROC", "sensitivity", "specificity", "overlap baseline"),
        [result.row() for result in results],
    )


def mock_judge(
    port: Annotated[int, typer.Option(help="On the loopback address; 0 picks a free one.")] = 8089,
    latency: Annotated[float, typer.Option(help="Seconds before each answer.")] = 0.05,
    fault_rate: Annotated[float, typer.Option(help="Share of requests that meet a fault.")] = 0.0,
    faults: Annotated[str | None, typer.Option(help="Comma-separated kinds of fault; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 0,
    structured: Annotated[bool, typer.Option(help="Whether it offers structured output.")] = True,
    logprobs: Annotated[bool, typer.Option(help="Whether it offers log probabilities.")] = True,
) -> None:
    """Serve a deterministic OpenAI-compatible judge for tests, until interrupted."""
    from factscore_mod.mock_server import FAULTS, MockOptions, serve_mock

    try:
        options = MockOptions(
            latency=latency,
            fault_rate=fault_rate,
            faults=tuple(faults.split(",")) if faults else FAULTS,  # type: ignore[arg-type]
            seed=seed,
            structured=structured,
            logprobs=logprobs,
        )
        serve_mock(options, port=port, ready=lambda url: typer.echo(f"serving {url}; stop with Ctrl-C"))
    except ValueError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo("stopped")


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Raises UserError for a value that is not allowed."""
    if value not in allowed:
        raise UserError(f"{option}: '{value}' is none of {', '.join(allowed)}")


def _print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
