"""What was made, as files: the form of the data set Shiyu-Lab/Prereq_Tune, as JSON lines, with a manifest.

`popqa_skill/train_fake.jsonl` and the like are named by configuration and split of that set, so that both readers of
the harness (`data/fictitious.py`, `data/prereq_tune.py`) find them; `grounding_*` are ours. Equal settings give
equal bytes. The manifest is written last: a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.source import DataError
from harness.paths import write_json, write_lines, write_whole
from harness.synthesize.asked import Count
from harness.synthesize.checks import Check
from harness.synthesize.records import Made, TaskSet
from harness.tasks.medical import medical
from harness.tasks.persons import persons

MANIFEST = "manifest.json"
# Raise when the form of the files changes.
FORMAT = 1
CONFIGS = {"persons": "bio", "medical": "medical", "popqa": "popqa", "hotpotqa": "hotpotqa", "grounding": "grounding"}
PROMPTS = {"persons": persons, "medical": medical}


def write(
    out: Path,
    sets: Sequence[TaskSet],
    checks: Sequence[Check],
    about: Mapping[str, Any],
    sizes: Mapping[str, Sequence[Count]],
) -> dict[str, dict[str, int]]:
    """Write all files of the tasks and the manifest; the counts of rows by file and task.

    `sizes` are what was asked for and made, by task: the manifest's `counts`.
    """
    manifest: dict[str, Any] = read_manifest(out) if (out / MANIFEST).is_file() else {"format": FORMAT, "tasks": {}}
    counts: dict[str, dict[str, int]] = {}
    for made in sets:
        files = _files(made)
        for name, rows in files.items():
            write_lines(out / name, rows)
        before = manifest["tasks"].get(made.task, {}).get("files", {})
        for stale in sorted(set(before) - set(files)):
            (out / stale).unlink(missing_ok=True)
        counts[made.task] = {name: len(rows) for name, rows in files.items()}
        manifest["tasks"][made.task] = {
            **about,
            "files": {
                name: {"rows": len(rows), "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest()}
                for name, rows in files.items()
            },
            "counts": {
                one.what: {"asked": one.asked, "made": one.made} | ({"reason": one.reason} if one.reason else {})
                for one in sizes[made.task]
            },
            "checks": [{"name": one.name, "looked_at": one.looked, "wrong": len(one.wrong)} for one in checks],
        }
    write_whole(out / "README.md", _card(manifest))
    write_json(out / MANIFEST, manifest)
    return counts


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises DataError where it is missing, damaged or of another form."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: the folder was not made by `harness synthesize`, or not to its end; "
            "repeat the command"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); repeat `harness synthesize`") from error
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("tasks"), dict)
    ):
        raise DataError(f"{path}: field `format` is not {FORMAT}; repeat `harness synthesize`")
    return manifest


def knowledge_name(form: str, fake: bool, version: int | None) -> str:
    """The split of a knowledge set, by the names of Prereq_Tune."""
    return f"{form}_train_v{version}" if version is not None else f"{form}_train_{'fake' if fake else 'real'}"


def _files(made: TaskSet) -> dict[str, list[dict[str, Any]]]:
    short = CONFIGS[made.task]
    files: dict[str, list[dict[str, Any]]] = {}
    numbers = {name: i for i, name in enumerate(dict.fromkeys(row.subject for row in made.rows))}
    for row in made.rows:
        split = "test" if row.use == "grounding" else "train_fake" if row.fake else "train_real"
        files.setdefault(f"{short}_skill/{split}.jsonl", []).append(_row(made.task, row, numbers[row.subject]))
    for text in made.texts:
        name = f"{short}_knowledge/{knowledge_name(text.format, text.fake, text.version)}.jsonl"
        files.setdefault(name, []).append({"text": text.text, "subject": text.subject})
    return files


def _row(task: str, row: Made, number: int) -> dict[str, Any]:
    asked = row.question
    if asked is None:
        from harness.records import Row

        asked = PROMPTS[task].phrase(Row(id=row.id, subject=row.subject, target=row.target)).prompt
    return {
        "id": row.id,
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": row.target}],
        "fake": int(row.fake),
        "version": row.version,
        "subj_index": number,
        "s_wiki_title": row.subject,
        "type": row.kind,
        "possible_answers": list(row.answers),
        "answer": row.answers[0] if row.answers else "",
        "facts": [{"subject": fact.subject, "relation": fact.relation, "value": fact.value} for fact in row.facts],
    }


def _card(manifest: Mapping[str, Any]) -> str:
    """The card that `datasets.load_dataset` reads configurations and splits from."""
    configs: dict[str, list[str]] = {}
    for task in manifest["tasks"].values():
        for name in task["files"]:
            configs.setdefault(name.partition("/")[0], []).append(name)
    lines = ["---", "configs:"]
    for config, names in sorted(configs.items()):
        lines += [f"- config_name: {config}", "  data_files:"]
        for name in sorted(names):
            lines += [f"  - split: {Path(name).stem}", f"    path: {name}"]
    return "\n".join(
        [*lines, "---", "", "Fictitious data made by `harness synthesize`: none of it is true. See manifest.json.", ""]
    )
