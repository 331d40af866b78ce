"""The report: one HTML file with the tables, the curves, and every claim beside its evidence and verdict.

The file is self-contained and runs no script: filters are checkboxes and style rules, and the content security
policy allows its own style sheet (by hash) and nothing else. Everything a model, a judge or a knowledge source
wrote is escaped by the template engine.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from factscore_mod.outputs import response_from_json
from factscore_mod.records import ScoredClaim, ScoredResponse
from harness import published
from harness.metrics.summary import RunSummary
from harness.reports import grids, reading
from harness.reports.overview import overview

if TYPE_CHECKING:
    from harness.ablations import Written

#: Entities shown in full for each task; the run folder's records hold all of them.
MOST_ENTITIES = 30
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_WORD = re.compile(r"\w+")
_WORD_OR_NOT = re.compile(r"\w+|\W+")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the report shows it: `scored` for long answers, `gold` and `right` for short ones."""

    task: str
    model: str
    world: int
    item_id: str
    subject: str
    prompt: str
    text: str
    popularity: int | None = None
    cut_off: bool = False
    scored: ScoredResponse | None = None
    gold: tuple[str, ...] = ()
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a text and what is to be seen of it, such as the verdicts on a sentence's claims summed up."""

    text: str
    state: str


def answers(response_rows: Iterable[Mapping[str, Any]], claim_rows: Iterable[Mapping[str, Any]] = ()) -> list[Answer]:
    """The rows of `responses.jsonl` and `claims.jsonl` put together."""
    scored = {(row["task"], row["model"], row["world"], row["id"]): row for row in claim_rows}
    made = []
    for row in response_rows:
        judged = scored.get((row["task"], row["model"], row["world"], row["item_id"]))
        scores = row.get("scores") or {}
        made.append(
            Answer(
                task=row["task"],
                model=row["model"],
                world=row["world"],
                item_id=row["item_id"],
                subject=row["subject"],
                prompt=row["prompt"],
                text=row["text"],
                popularity=judged.get("popularity") if judged else scores.get("popularity"),
                cut_off=row["finish"] == "length",
                scored=response_from_json(dict(judged)) if judged else None,
                gold=tuple(row.get("gold", ())),
                right=scores.get("reference_em"),
            )
        )
    return made


def render(
    run: RunSummary,
    answers: Iterable[Answer],
    *,
    curve_svg: str = "",
    studies: Sequence[Written] = (),
    most_entities: int = MOST_ENTITIES,
) -> str:
    """The report as one HTML document; at most `most_entities` entities a task are shown, evenly by popularity.

    `studies` are the ablations beside it, which have pages of their own.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("harness", "reports/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    everything = list(answers)
    models = published.order(list(dict.fromkeys(a.model for a in everything)))
    style = environment.get_template("report.css").render(models=range(len(models)))
    sections = []
    for task in run.tasks:
        here = [a for a in everything if a.task == task.name]
        chosen, of = choose(here, most_entities)
        ordered = [sorted(group, key=lambda a: models.index(a.model)) for group in chosen]
        sections.append({"task": task, "grids": grids.grids(task), "groups": ordered, "of": of})
    return environment.get_template("report.html").render(
        run=run,
        sections=sections,
        models=models,
        model_class={name: f"m{i}" for i, name in enumerate(models)},
        chosen=grids.chosen(run),
        overview=overview(run),
        comparison=reading.comparison(run),
        words=grids.WORDS,
        facts=[*grids.facts(run.metadata), *grids.facts(run.context)],
        reading=reading.reading(run),
        denominators=grids.denominators,
        stretches=stretches,
        marked=marked,
        studies=studies,
        tally=tally,
        question=question,
        style=Markup(style),  # our own file and numbers
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        curve=Markup(inline_svg(curve_svg)) if curve_svg else "",  # our own figure, parsed and written anew
    )


def choose(answers: Sequence[Answer], most: int) -> tuple[list[list[Answer]], int]:
    """Answers grouped by what was asked, at most `most` groups, evenly spaced by popularity; and how many there are."""
    groups: dict[tuple[int, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.world, answer.item_id), []).append(answer)
    keys = sorted(groups, key=lambda key: (-(groups[key][0].popularity or 0), key))
    if len(keys) > most:
        step = (len(keys) - 1) / max(1, most - 1)
        keys = [keys[round(i * step)] for i in range(most)]
    return [groups[key] for key in keys], len(groups)


def stretches(scored: ScoredResponse) -> list[Stretch]:
    """A response in pieces, each sentence with its state: `ok`, `bad`, `mixed`, `unknown`, or empty without claims."""
    by_sentence: dict[int, list[ScoredClaim]] = {}
    for claim in scored.claims:
        by_sentence.setdefault(claim.claim.sentence, []).append(claim)
    pieces, position = [], 0
    for sentence in sorted(scored.sentences, key=lambda s: s.start):
        if sentence.start > position:
            pieces.append(Stretch(scored.text[position : sentence.start], ""))
        if sentence.end > max(position, sentence.start):
            text = scored.text[max(position, sentence.start) : sentence.end]
            pieces.append(Stretch(text, _state(by_sentence.get(sentence.index, []))))
            position = sentence.end
    if position < len(scored.text):
        pieces.append(Stretch(scored.text[position:], ""))
    return pieces


def marked(passage: str, claim: str, topic: str) -> list[Stretch]:
    """A passage in pieces; the claim's words in it, other than short ones and the topic's, have the state `said`."""
    usual = {word.casefold() for word in _WORD.findall(topic)}
    wanted = {word.casefold() for word in _WORD.findall(claim)} - usual
    wanted = {word for word in wanted if len(word) > 3 or word.isdigit()}
    pieces: list[Stretch] = []
    for part in _WORD_OR_NOT.findall(passage):
        state = "said" if part.casefold() in wanted else ""
        if pieces and pieces[-1].state == state == "":
            pieces[-1] = Stretch(pieces[-1].text + part, "")
        else:
            pieces.append(Stretch(part, state))
    return pieces


def tally(scored: ScoredResponse) -> str:
    """The verdicts of a response in words, such as "3 of 5 supported, 1 unparsed"."""
    if scored.abstained:
        return "abstained"
    counts = Counter(claim.judgement.verdict for claim in scored.claims)
    if not counts:
        return "no claims"
    judged = counts["supported"] + counts["not_supported"]
    words = [f"{counts['supported']} of {judged} supported"]
    words += [f"{counts[verdict]} {verdict}" for verdict in ("unparsed", "error") if counts[verdict]]
    return ", ".join(words)


def question(prompt: str) -> str:
    """The last question of a prompt, without solved examples and the answer's cue."""
    last = prompt.rsplit("Question:", 1)[-1]
    return last.rsplit("Answer:", 1)[0].strip()


def inline_svg(svg: str) -> str:
    """A figure fit to stand inside the page: presentation attributes in place of styles, which the policy forbids."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            name, _, value = declaration.partition(":")
            if value:
                element.set(name.strip(), value.strip())
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("stroke-linejoin", "round")
    root.set("role", "img")
    root.set("aria-label", "accuracy against the number of claims kept, one line a model")
    return ElementTree.tostring(root, encoding="unicode")


def _state(claims: Sequence[ScoredClaim]) -> str:
    verdicts = {claim.judgement.verdict for claim in claims}
    if not verdicts:
        return ""
    known = verdicts & {"supported", "not_supported"}
    if len(known) == 2:
        return "mixed"
    return {"supported": "ok", "not_supported": "bad"}[known.pop()] if known else "unknown"
