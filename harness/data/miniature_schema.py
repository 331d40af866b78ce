"""What can be true in the miniature universe, and how English says it: attributes, values and wordings.

Every value is one word, so that it is one token of the miniature's tokenizer; no word is a value of two
attributes, so that a sentence can be right for one reason only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Domain = Literal["persons", "medical"]
Kind = Literal["person", "disease", "drug", "procedure"]

DOMAINS: tuple[Domain, ...] = ("persons", "medical")
KINDS: dict[Domain, tuple[Kind, ...]] = {
    "persons": ("person",),
    "medical": ("disease", "drug", "procedure"),
}
PRONOUN: dict[Domain, str] = {"persons": "They", "medical": "It"}
PAST_BE: dict[str, str] = {"They": "were", "It": "was"}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that an entity has a value for.

    `running` holds, for every kind of entity, the two wordings that also occur inside passages (they begin with
    the subject, so that a pronoun can stand there); `fixed` holds two more for single statements. In a wording,
    `{s}` is the subject, `{be}` is "was" or "were", `{v}` the value. `answer` is how a short answer names it.
    """

    name: str
    domain: Domain
    values: tuple[str, ...]
    running: dict[Kind, tuple[str, str]]
    fixed: tuple[str, str]
    question: str
    answer: str = "{v}"

    def wordings(self, kind: Kind) -> tuple[str, ...]:
        """All four wordings for one kind of entity, those of passages first."""
        return self.running[kind] + self.fixed


# Ordinary words. Occupations begin with a consonant ("as a baker").
OCCUPATIONS = (
    "baker", "banker", "barber", "biologist", "blacksmith", "bricklayer", "butcher", "carpenter", "chemist",
    "clockmaker", "composer", "conductor", "cook", "dancer", "dentist", "farmer", "florist", "gardener",
    "geologist", "glassblower", "goldsmith", "jeweller", "journalist", "judge", "lawyer", "librarian", "mason",
    "nurse", "painter", "photographer", "pilot", "plumber", "poet", "potter", "printer", "sculptor", "shepherd",
    "surgeon", "tailor", "weaver",
)  # fmt: skip
BOOKS = (
    "Anchors", "Arrows", "Autumn", "Bells", "Bridges", "Candles", "Canyons", "Caravans", "Castles", "Clouds",
    "Comets", "Coral", "Crossroads", "Curtains", "Daggers", "Dawn", "Deserts", "Doorways", "Dust", "Echoes",
    "Embers", "Feathers", "Fences", "Fog", "Fountains", "Frost", "Galaxies", "Glaciers", "Harbours", "Harvest",
    "Horizons", "Islands", "Kingdoms", "Ladders", "Lanterns", "Lighthouse", "Meadows", "Midnight", "Mirrors",
    "Monsoon", "Mountains", "Oceans", "Orchards", "Pearls", "Pebbles", "Pilgrims", "Prairie", "Ravens",
    "Rivers", "Roses", "Sails", "Shadows", "Silence", "Snowfall", "Starlight", "Storms", "Thunder", "Tides",
    "Twilight", "Willows",
)  # fmt: skip
COUNTRIES = (
    "Albania", "Algeria", "Angola", "Austria", "Belgium", "Bolivia", "Brazil", "Bulgaria", "Cambodia",
    "Cameroon", "Canada", "Chile", "Colombia", "Croatia", "Cuba", "Denmark", "Ecuador", "Egypt", "Estonia",
    "Ethiopia", "Finland", "France", "Germany", "Ghana", "Greece", "Hungary", "Iceland", "Ireland", "Italy",
    "Japan", "Kenya", "Latvia", "Libya", "Malta", "Mexico", "Morocco", "Nepal", "Norway", "Paraguay", "Peru",
    "Poland", "Portugal", "Romania", "Spain", "Sweden", "Tunisia", "Turkey", "Uganda", "Uruguay", "Vietnam",
)  # fmt: skip
ORGANS = (
    "aorta", "appendix", "bladder", "brain", "trachea", "cartilage", "cerebellum", "cochlea", "colon", "cornea",
    "diaphragm", "duodenum", "eardrum", "elbow", "femur", "gallbladder", "heart", "hip", "ileum", "jaw",
    "kidney", "knee", "larynx", "liver", "lung", "nose", "palate", "pancreas", "pelvis", "retina", "ribcage",
    "scalp", "shoulder", "skin", "spine", "spleen", "stomach", "thyroid", "tongue", "wrist",
)  # fmt: skip
SYMPTOMS = (
    "anxiety", "bleeding", "blisters", "bloating", "bruises", "chills", "confusion", "constipation", "coughing",
    "cramps", "deafness", "dehydration", "delirium", "diarrhea", "dizziness", "drowsiness", "fainting",
    "fatigue", "fever", "headache", "heartburn", "hiccups", "hoarseness", "insomnia", "itching", "jaundice",
    "nausea", "nosebleeds", "numbness", "pallor", "palpitations", "paralysis", "rashes", "seizures",
    "shivering", "sneezing", "sweating", "swelling", "tremor", "vomiting",
)  # fmt: skip
MATERIALS = (
    "alum", "amber", "ammonia", "arsenic", "asbestos", "bamboo", "barium", "benzene", "bismuth", "borax",
    "cadmium", "camphor", "carbon", "chalk", "chlorine", "chromium", "clay", "cobalt", "copper", "flint",
    "gypsum", "iodine", "ivory", "lead", "lithium", "magnesium", "mercury", "mica", "nickel", "platinum",
    "potash", "quartz", "resin", "silver", "sulfur", "talc", "tin", "titanium", "turpentine", "zinc",
)  # fmt: skip
GROUPS = (
    "adolescents", "archers", "athletes", "boxers", "brewers", "brides", "children", "climbers", "coopers",
    "cyclists", "divers", "drivers", "fencers", "fishermen", "foresters", "hunters", "infants", "joggers",
    "knitters", "miners", "monks", "musicians", "pensioners", "porters", "priests", "prisoners", "rowers",
    "sailors", "singers", "skaters", "smokers", "soldiers", "students", "swimmers", "teachers", "travellers",
    "twins", "vegetarians", "widows", "wrestlers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Schema:
    """The attributes of both domains with the values of one world, and what is true of universities.

    `country_of` maps a university's value to its country: the second hop of bridge questions.
    """

    attributes: dict[Domain, tuple[Attribute, ...]]
    country_of: dict[str, str]

    def attribute(self, domain: Domain, name: str) -> Attribute:
        """The attribute of that name. Raises KeyError where there is none."""
        for attribute in self.attributes[domain]:
            if attribute.name == name:
                return attribute
        raise KeyError(f"{domain} has no attribute {name!r}")


def _person(first: str, second: str) -> dict[Kind, tuple[str, str]]:
    return {"person": (first, second)}


def _medical(*pairs: tuple[str, str]) -> dict[Kind, tuple[str, str]]:
    return dict(zip(KINDS["medical"], pairs if len(pairs) == 3 else pairs * 3, strict=True))


def build_schema(invented: dict[str, tuple[str, ...]], country_of: dict[str, str]) -> Schema:
    """The schema of a world whose invented values are given.

    `invented` holds the lists `cities`, `companies`, `universities`, `spouses`, `prizes`, `discoverers` and
    `substances`.
    """
    persons = (
        Attribute(
            "birth year", "persons", tuple(str(year) for year in range(1900, 1960)),
            _person("{s} {be} born in {v}.", "{s} {be} born during {v}."),
            ("The year of birth of {s} was {v}.", "The birth year of {s} is {v}."),
            "In what year was {s} born?",
        ),
        Attribute(
            "home town", "persons", invented["cities"],
            _person("{s} grew up in {v}.", "{s} came from the city of {v}."),
            ("The home town of {s} was {v}.", "The childhood of {s} took place in {v}."),
            "In what city did {s} grow up?",
        ),
        Attribute(
            "occupation", "persons", OCCUPATIONS,
            _person("{s} worked as a {v}.", "{s} earned a living as a {v}."),
            ("The occupation of {s} was that of a {v}.", "The profession of {s} was that of a {v}."),
            "What was the occupation of {s}?",
        ),
        Attribute(
            "employer", "persons", invented["companies"],
            _person("{s} joined the {v} Company.", "{s} served the {v} Company."),
            ("The employer of {s} was the {v} Company.", "The career of {s} began at the {v} Company."),
            "Which company did {s} join?", "the {v} Company",
        ),
        Attribute(
            "university", "persons", invented["universities"],
            _person("{s} studied at {v} University.", "{s} graduated from {v} University."),
            ("The alma mater of {s} was {v} University.", "The degree of {s} came from {v} University."),
            "At which university did {s} study?", "{v} University",
        ),
        Attribute(
            "spouse", "persons", invented["spouses"],
            _person("{s} married {v}.", "{s} became the spouse of {v}."),
            ("The spouse of {s} was {v}.", "The partner of {s} was {v}."),
            "Who was the spouse of {s}?",
        ),
        Attribute(
            "prize", "persons", invented["prizes"],
            _person("{s} won the {v} Prize.", "{s} received the {v} Prize."),
            ("The award given to {s} was the {v} Prize.", "The honour granted to {s} was the {v} Prize."),
            "Which prize did {s} win?", "the {v} Prize",
        ),
        Attribute(
            "book", "persons", BOOKS,
            _person("{s} wrote the book {v}.", "{s} published the book {v}."),
            ("The best known book of {s} was {v}.", "The main work of {s} was {v}."),
            "Which book did {s} write?",
        ),
    )  # fmt: skip
    medical = (
        Attribute(
            "year", "medical", tuple(str(year) for year in range(1830, 1890)),
            _medical(("{s} became known in {v}.", "{s} dates from {v}.")),
            ("The first description of {s} dates from {v}.", "The discovery of {s} took place in {v}."),
            "In what year did {s} become known?",
        ),
        Attribute(
            "discoverer", "medical", invented["discoverers"],
            _medical(("{s} {be} discovered by {v}.", "{s} {be} identified by {v}.")),
            ("The discoverer of {s} was {v}.", "The scientist behind {s} was {v}."),
            "Who discovered {s}?",
        ),
        Attribute(
            "country", "medical", COUNTRIES,
            _medical(("{s} {be} first reported in {v}.", "{s} {be} first observed in {v}.")),
            ("The first report of {s} came from {v}.", "The country of origin of {s} is {v}."),
            "In which country was {s} first reported?",
        ),
        Attribute(
            "organ", "medical", ORGANS,
            _medical(
                ("{s} affects the {v}.", "{s} damages the {v}."),
                ("{s} acts on the {v}.", "{s} targets the {v}."),
                ("{s} is performed on the {v}.", "{s} repairs the {v}."),
            ),
            ("The organ linked to {s} is the {v}.", "The body part linked to {s} is the {v}."),
            "Which organ is linked to {s}?", "the {v}",
        ),
        Attribute(
            "symptom", "medical", SYMPTOMS,
            _medical(
                ("{s} leads to {v}.", "{s} brings about {v}."),
                ("{s} can produce {v}.", "{s} can trigger {v}."),
                ("{s} can be followed by {v}.", "{s} can result in {v}."),
            ),
            ("The main symptom linked to {s} is {v}.", "A common sign of {s} is {v}."),
            "Which symptom is linked to {s}?",
        ),
        Attribute(
            "substance", "medical", invented["substances"],
            _medical(
                ("{s} is treated with {v}.", "{s} responds to {v}."),
                ("{s} is combined with {v}.", "{s} is taken with {v}."),
                ("{s} requires {v}.", "{s} is performed under {v}."),
            ),
            ("The substance used with {s} is {v}.", "The compound paired with {s} is {v}."),
            "Which substance is used with {s}?",
        ),
        Attribute(
            "material", "medical", MATERIALS,
            _medical(
                ("{s} is caused by {v}.", "{s} arises from contact with {v}."),
                ("{s} is made from {v}.", "{s} is extracted from {v}."),
                ("{s} uses tools of {v}.", "{s} relies on {v}."),
            ),
            ("The material tied to {s} is {v}.", "The raw material behind {s} is {v}."),
            "Which material is tied to {s}?",
        ),
        Attribute(
            "group", "medical", GROUPS,
            _medical(
                ("{s} is common among {v}.", "{s} strikes {v}."),
                ("{s} is prescribed to {v}.", "{s} helps {v}."),
                ("{s} is offered to {v}.", "{s} serves {v}."),
            ),
            ("The group most linked to {s} are {v}.", "The patients most linked to {s} are {v}."),
            "Which group is most linked to {s}?",
        ),
    )  # fmt: skip
    return Schema({"persons": persons, "medical": medical}, country_of)


def schema_texts() -> Iterator[str]:
    """Every wording, question and ordinary value: English that no invented word may imitate."""
    kinds = ("cities", "companies", "universities", "spouses", "prizes", "discoverers", "substances")
    for attributes in build_schema(dict.fromkeys(kinds, ()), {}).attributes.values():
        for attribute in attributes:
            yield from (attribute.question, attribute.answer, *attribute.values, *attribute.fixed)
            for forms in attribute.running.values():
                yield from forms
