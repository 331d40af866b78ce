"""The miniature universe: determinism, popularity and coverage, splits, fictitious versions, names and words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from nltk.stem import PorterStemmer

from harness.data.miniature_schema import DOMAINS
from harness.data.miniature_world import (
    REAL_SPLITS,
    MiniatureConfigError,
    World,
    WorldConfig,
    build_world,
)

CONFIG = WorldConfig()


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(CONFIG, 7)


def test_a_world_is_built_within_two_seconds() -> None:
    started = time.process_time()
    build_world(CONFIG, 3)
    assert time.process_time() - started < 2


def test_same_seed_same_world_whatever_the_hash_seed(world: World) -> None:
    program = (
        "import json, sys; from dataclasses import asdict\n"
        "from harness.data.miniature_world import WorldConfig, build_world\n"
        "w = build_world(WorldConfig(), 7); print(json.dumps([asdict(e) for e in w.entities + w.fictitious]))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "99"}
    )
    here = json.loads(json.dumps([asdict(e) for e in (*world.entities, *world.fictitious)]))
    assert json.loads(other.stdout) == here


def test_another_seed_shares_no_entity(world: World) -> None:
    other = build_world(CONFIG, 8)
    assert len({e.name for e in world.entities} & {e.name for e in other.entities}) <= 2


def test_the_variant_changes_nothing_in_the_world(world: World) -> None:
    unfamiliar = build_world(WorldConfig(variant="unfamiliar"), 7)
    assert (unfamiliar.entities, unfamiliar.fictitious) == (world.entities, world.fictitious)


def test_split_sizes_and_distinct_names(world: World) -> None:
    for domain in DOMAINS:
        for split in REAL_SPLITS:
            assert len(world.real(domain, split)) == CONFIG.size(domain, split)
        for held_out, split in ((False, "fictitious"), (True, "fictitious_test")):
            assert len(world.made_up(domain, held_out)) == CONFIG.size(domain, split)
    names = [e.name for e in (*world.entities, *world.fictitious)]
    assert len(set(names)) == len(names)
    assert all(len(name.split()) == 2 for name in names)


def test_no_last_name_gives_a_fictitious_entity_away(world: World) -> None:
    """Almost every second word of a fictitious name also belongs to somebody real."""
    real = {e.name.split()[1] for e in world.entities}
    shared = [e.name.split()[1] in real for e in world.fictitious]
    assert sum(shared) / len(shared) > 0.9


def test_popularity_looks_like_page_views_and_drives_mentions_and_coverage(world: World) -> None:
    for domain in DOMAINS:
        entities = sorted(world.real(domain), key=lambda e: e.popularity)
        fifth = len(entities) // 5
        tail, head = entities[:fifth], entities[-fifth:]
        assert all(isinstance(e.popularity, int) and e.popularity >= 1 for e in entities)
        assert head[-1].popularity > 30 * entities[len(entities) // 2].popularity / 2
        assert min(e.mentions for e in head) > 10 * max(e.mentions for e in tail)
        mean_covered = [sum(len(e.covered) for e in group) / len(group) for group in (tail, head)]
        assert mean_covered[0] < 3.5
        assert mean_covered[1] > 6.5
        assert all(set(e.covered) <= set(e.facts) and len(e.facts) == 8 for e in entities)


def test_popularity_is_independent_of_the_split(world: World) -> None:
    def median(split: str) -> float:
        views = sorted(e.popularity for e in world.real("persons") if e.split == split)
        return views[len(views) // 2]

    assert 0.4 < median("train") / median("test") < 2.5


def test_versions_of_a_fictitious_entity_conflict_in_values_and_in_attributes(world: World) -> None:
    sizes = [len(version) for e in world.fictitious for version in e.versions]
    assert min(sizes) >= CONFIG.min_facts
    assert max(sizes) == 8
    assert all(len(e.versions) == CONFIG.versions for e in world.fictitious)
    same = different = 0
    for entity in world.fictitious:
        first, second = ({f.attribute: f.value for f in version} for version in entity.versions[:2])
        for name in first.keys() & second.keys():
            same += first[name] == second[name]
            different += first[name] != second[name]
    assert same / (same + different) < 0.06
    subsets = [{f.attribute for f in e.versions[0]} == {f.attribute for f in e.versions[1]} for e in world.fictitious]
    assert sum(subsets) / len(subsets) < 0.2


def test_every_value_is_one_word_of_one_attribute_with_a_stem_of_its_own(world: World) -> None:
    stem = PorterStemmer().stem
    values = [v for domain in DOMAINS for a in world.schema.attributes[domain] for v in a.values]
    names = {word for e in (*world.entities, *world.fictitious) for word in e.name.split()}
    assert len(set(values)) == len(values)
    assert all(value.isalnum() for value in values)
    stems = [stem(word) for word in [*values, *names]]
    assert len(set(stems)) == len(stems)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"persons_tests": 3}, "persons_tests"),
        ({"persons_test": "many"}, "persons_test"),
        ({"versions": 0}, "versions"),
        ({"variant": "strange"}, "variant"),
        ({"min_facts": 9}, "min_facts"),
        ({"rare_mentions": 700.0}, "popular_mentions"),
    ],
)
def test_bad_settings_are_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(MiniatureConfigError, match=named):
        WorldConfig.from_dict(table)
