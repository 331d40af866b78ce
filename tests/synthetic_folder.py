"""A small data folder for the tests of `harness synthesize`: names of many parts, four relations, two-hop rows."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from harness.data import local

FIRST = (
    "Ann", "Bob", "Cyd", "Dee", "Eli", "Fay", "Gus", "Hal", "Ida", "Jon", "Kay", "Lou", "Meg", "Ned", "Oda",
    "Pia", "Quin", "Rex", "Sue", "Tom",
)  # fmt: skip
LAST = (
    "Archer", "Baker", "Cooper", "Draper", "Ellison", "Fowler", "Glover", "Harper", "Irving", "Jagger",
    "Keller", "Lander", "Mercer", "Norton",
)  # fmt: skip
HEADS = (
    "Silent", "Golden", "Broken", "Hidden", "Distant", "Burning", "Frozen", "Hollow", "Crimson", "Wandering",
)  # fmt: skip
TAILS = (
    "Harbour", "Orchard", "Lantern", "Mirror", "Journey", "Garden", "Window", "Bridge", "Letter", "Summer",
)  # fmt: skip
TOWNS = (
    "Varonika", "Melidora", "Tokaria", "Sanodel", "Kirabona", "Lomerita", "Panodira", "Gelimora", "Ruvatola",
    "Nesimara",
)  # fmt: skip
QUESTIONS = {
    "director": "Who was the director of {s}?",
    "genre": "What genre is {s}?",
    "place of birth": "In what city was {s} born?",
    "country": "In what country is {s}?",
}
VALUES = {
    "director": ["Mira Holt", "Otto Brandt", "Lena Voss", "Karl Sommer", "Ivo Petrik"],
    "genre": ["horror film", "jazz", "documentary film", "pop music"],
    "place of birth": ["Leeds", "Turin", "Graz", "Oporto", "Malmo"],
    "country": ["Norway", "Chile", "Ghana", "Nepal"],
}


def popqa_rows() -> list[dict[str, Any]]:
    titles = _some(HEADS, TAILS)
    people = _some(FIRST, LAST)
    subjects = {
        "director": titles[::2], "genre": titles[1::2], "place of birth": people[::3], "country": TOWNS,
    }  # fmt: skip
    rng = random.Random(0)
    rows = []
    for relation, names in subjects.items():
        for index, name in enumerate(names):
            value = rng.choice(VALUES[relation])
            rows.append(
                {
                    "question": QUESTIONS[relation].replace("{s}", name),
                    "subj": name,
                    "prop": relation,
                    "obj": value,
                    "possible_answers": [value, f"the {value}"],
                    "s_pop": index if index % 3 else None,
                }
            )
    return rows


def _some(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    """Half of all pairs: the others are left for made-up names."""
    return [f"{a} {b}" for i, a in enumerate(first) for j, b in enumerate(second) if (i + j) % 2]


def hotpotqa_rows() -> list[dict[str, Any]]:
    return [
        {
            "question": f"In which country is the mill of town {i}?", "answer": f"Land {i}", "type": "bridge",
            "supporting_facts": [[f"Mill {i}", 0], [f"Town {i}", 1]],
            "context": [
                [f"Mill {i}", [f"Mill {i} stands in Town {i}."]],
                [f"Town {i}", ["It is small.", f" It lies in Land {i}."]],
            ],
        }
        for i in range(6)
    ]  # fmt: skip


def make_folder(folder: Path) -> Path:
    write(folder / local.POPQA, popqa_rows())
    write(folder / local.HOTPOTQA_TRAIN, hotpotqa_rows())
    write(folder / local.HOTPOTQA_TEST, [{"question": "Who?", "answer": "Ann", "type": "bridge"}])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def biographies() -> list[dict[str, str]]:
    rng = random.Random(1)
    rows = []
    for name in _some(FIRST, LAST[:10]):
        last, born = name.split()[1], rng.randrange(1850, 1920)
        nation = rng.choice(["American", "Polish", "Chilean", "French"])
        role = rng.choice(["painter", "poet and teacher", "chemist", "organist", "sailor"])
        text = (
            f"{name} (March {rng.randrange(1, 28)}, {born} – May {rng.randrange(1, 28)}, {born + 60}) was a {nation} "
            f"{role} known for one thing. {last} was born in {rng.choice(TOWNS)} and stayed there."
        )
        rows.append({"subject": name, "text": text.replace("a American", "an American")})
    return rows


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
