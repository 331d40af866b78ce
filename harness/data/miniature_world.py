"""The miniature universe itself: who exists, what is true of them, how popular they are, what a corpus tells.

A world is a pure function of its configuration and a seed. Its facts are drawn uniformly, so that nothing can
be guessed; how often a corpus mentions an entity grows with its popularity, and so does its *coverage*, the set
of attributes that the corpus ever gives for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from harness.data.miniature_names import invent, lower_words
from harness.data.miniature_schema import (
    COUNTRIES,
    DOMAINS,
    KINDS,
    Attribute,
    Domain,
    Kind,
    Schema,
    build_schema,
    schema_texts,
)
from train.seeds import derive_seed

EntitySplit = Literal["pretrain", "train", "validation", "test"]
REAL_SPLITS: tuple[EntitySplit, ...] = ("pretrain", "train", "validation", "test")


class MiniatureConfigError(ValueError):
    """A setting of the miniature is missing, unknown or out of range; the message names it."""


def checked_fields(cls: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table as keyword arguments of a dataclass. Raises MiniatureConfigError for unknown names or types."""
    known = {f.name: f.type for f in fields(cls)}
    for name, value in table.items():
        if name not in known:
            raise MiniatureConfigError(f"{where}: unknown setting {name!r}; known are {', '.join(known)}")
        wanted = str(known[name])
        right = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
        }.get(wanted, True)
        if not right:
            raise MiniatureConfigError(f"{where}: {name} must be of type {wanted}, not {value!r}")
    return dict(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """Sizes and shape of a world.

    `*_pretrain` entities occur in pre-training only, and are where the `familiar` variant shows the base the
    task prompts. Every fictitious entity has `versions` versions, each with its own values and its own subset
    of `min_facts` to 8 attributes. `questions` short questions are asked about each training and test entity.
    `rare_mentions` and `popular_mentions` bound how often an epoch of the corpus states a fact of an entity, and
    it gives at least `covered_at_least` of an entity's attributes (a teacher has read more than a base).
    A knowledge set holds `statement_wordings` sentences a fact and `passages` passages an entity.
    """

    variant: Literal["familiar", "unfamiliar"] = "familiar"
    persons_pretrain: int = 80
    persons_train: int = 130
    persons_validation: int = 40
    persons_test: int = 160
    persons_fictitious: int = 100
    persons_fictitious_test: int = 30
    medical_pretrain: int = 50
    medical_train: int = 90
    medical_validation: int = 30
    medical_test: int = 110
    medical_fictitious: int = 70
    medical_fictitious_test: int = 20
    versions: int = 3
    min_facts: int = 2
    questions: int = 8
    hotpot_questions: int = 2
    rare_mentions: float = 4.0
    popular_mentions: float = 600.0
    covered_at_least: int = 1
    invented_values: int = 50
    statement_wordings: int = 2
    passages: int = 2

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and value < 1:
                raise MiniatureConfigError(f"source.world: {f.name} must be at least 1, not {value}")
        if self.variant not in ("familiar", "unfamiliar"):
            raise MiniatureConfigError(f"source.world: variant must be familiar or unfamiliar, not {self.variant!r}")
        if self.min_facts > 8:
            raise MiniatureConfigError("source.world: min_facts must be at most 8")
        if self.popular_mentions <= self.rare_mentions:
            raise MiniatureConfigError("source.world: popular_mentions must exceed rare_mentions")

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> WorldConfig:
        """From the TOML table `[source.world]`. Raises MiniatureConfigError naming the setting at fault."""
        return cls(**checked_fields(cls, table, "source.world"))

    def size(self, domain: Domain, split: str) -> int:
        """How many entities of a domain are in a split, `fictitious` and `fictitious_test` included."""
        return int(getattr(self, f"{domain}_{split}"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for hashing and records."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fact:
    """`value` is what `attribute` is for some entity; both are as the schema names them."""

    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Entity:
    """A real entity. `covered` are the facts that the corpus gives, most mentioned first.

    `popularity` is in page views a month; `mentions` is how many facts an epoch of the corpus states of it.
    """

    name: str
    domain: Domain
    kind: Kind
    split: EntitySplit
    popularity: int
    mentions: float
    facts: tuple[Fact, ...]
    covered: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class FictitiousEntity:
    """An entity that no corpus mentions; `versions` are conflicting sets of facts about it."""

    name: str
    domain: Domain
    kind: Kind
    held_out: bool
    versions: tuple[tuple[Fact, ...], ...]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is true, and what is made up, in one universe."""

    config: WorldConfig
    seed: int
    schema: Schema
    entities: tuple[Entity, ...]
    fictitious: tuple[FictitiousEntity, ...]

    def real(self, domain: Domain, split: EntitySplit | None = None) -> tuple[Entity, ...]:
        """Real entities of a domain, of one split where given, in a fixed order."""
        return tuple(e for e in self.entities if e.domain == domain and split in (None, e.split))

    def made_up(self, domain: Domain, held_out: bool) -> tuple[FictitiousEntity, ...]:
        """Fictitious entities of a domain: those for training, or those held out for testing."""
        return tuple(e for e in self.fictitious if e.domain == domain and e.held_out == held_out)


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A random generator of its own for every (seed, purpose)."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def build_world(config: WorldConfig, seed: int) -> World:
    """Draw a world. Pure: the same configuration and seed give the same world on every machine."""
    rng = generator(seed, "names")
    taken = lower_words(schema_texts())
    lists = {
        kind: invent(kind, config.invented_values, rng, taken)
        for kind in ("cities", "companies", "universities", "spouses", "prizes", "discoverers", "substances")
    }
    country_of = {university: COUNTRIES[int(rng.integers(len(COUNTRIES)))] for university in lists["universities"]}
    schema = build_schema(lists, country_of)
    entities: list[Entity] = []
    fictitious: list[FictitiousEntity] = []
    for domain in DOMAINS:
        real_count = sum(config.size(domain, split) for split in REAL_SPLITS)
        made_up_count = config.size(domain, "fictitious") + config.size(domain, "fictitious_test")
        names = _names(domain, real_count + made_up_count, rng, taken)
        entities += _real_entities(config, seed, schema, domain, names[:real_count])
        fictitious += _fictitious_entities(config, seed, schema, domain, names[real_count:])
    return World(config, seed, schema, tuple(entities), tuple(fictitious))


def _names(domain: Domain, count: int, rng: np.random.Generator, taken: set[str]) -> list[tuple[str, Kind]]:
    """Names of two words. Each second word is shared by about two entities, so neither word alone identifies."""
    kinds = KINDS[domain]
    firsts = invent("first names" if domain == "persons" else "eponyms", max(8, count // 6), rng, taken)
    shared = -(-count // 2)
    seconds: list[tuple[str, Kind]] = []
    for index, kind in enumerate(kinds):
        size = len(range(index, shared, len(kinds)))
        ending = "last names" if domain == "persons" else kind
        seconds += [(word, kind) for word in invent(ending, size, rng, taken)]
    order = rng.permutation(len(seconds))
    names: list[tuple[str, Kind]] = []
    used: set[str] = set()
    for index in range(count):
        second, kind = seconds[int(order[index % len(seconds)])]
        name = f"{firsts[int(rng.integers(len(firsts)))]} {second}"
        while name in used:
            name = f"{firsts[int(rng.integers(len(firsts)))]} {second}"
        used.add(name)
        names.append((name, kind))
    return names


def _draw(attributes: tuple[Attribute, ...], rng: np.random.Generator) -> tuple[Fact, ...]:
    return tuple(Fact(a.name, a.values[int(rng.integers(len(a.values)))]) for a in attributes)


def _real_entities(
    config: WorldConfig, seed: int, schema: Schema, domain: Domain, names: list[tuple[str, Kind]]
) -> list[Entity]:
    """Popularity is drawn by rank, independently of the split and of the facts."""
    rng = generator(seed, "entities", domain)
    attributes = schema.attributes[domain]
    splits = [split for split in REAL_SPLITS for _ in range(config.size(domain, split))]
    splits = [splits[int(i)] for i in rng.permutation(len(splits))]
    quantiles = (rng.permutation(len(names)) + 0.5) / len(names)
    ratio = config.popular_mentions / config.rare_mentions
    entities = []
    for (name, kind), split, quantile in zip(names, splits, quantiles, strict=True):
        facts = _draw(attributes, rng)
        # One or two attributes at the tail, all at the head, and noise so that popularity does not tell the number.
        wanted = round(1.5 + 6.5 * float(quantile) + 0.8 * float(rng.standard_normal()))
        count = min(max(wanted, config.covered_at_least), len(attributes))
        covered = tuple(facts[int(i)] for i in rng.permutation(len(facts))[:count])
        entities.append(
            Entity(
                name=name, domain=domain, kind=kind, split=split,
                popularity=page_views(float(quantile)),
                mentions=config.rare_mentions * ratio ** float(quantile),
                facts=facts, covered=covered,
            )
        )  # fmt: skip
    return entities


def _fictitious_entities(
    config: WorldConfig, seed: int, schema: Schema, domain: Domain, names: list[tuple[str, Kind]]
) -> list[FictitiousEntity]:
    attributes = schema.attributes[domain]
    training = config.size(domain, "fictitious")
    entities = []
    for index, (name, kind) in enumerate(names):
        versions = []
        for version in range(config.versions):
            rng = generator(seed, "fictitious", domain, index, version)
            size = int(rng.integers(config.min_facts, len(attributes) + 1))
            chosen = rng.permutation(len(attributes))[:size]
            drawn = _draw(attributes, rng)
            versions.append(tuple(drawn[int(i)] for i in chosen))
        entities.append(FictitiousEntity(name, domain, kind, index >= training, tuple(versions)))
    return entities


def page_views(quantile: float) -> int:
    """Page views a month at a quantile of popularity: log-normal, median 665, about 16,000 at the 98th hundredth."""
    return max(1, round(float(np.exp(6.5 + 1.55 * NormalDist().inv_cdf(quantile)))))
