"""The closed word classes and the few equivalences that the rules know. Small on purpose: no learnt vocabulary.

Synonyms are left out: on human labels a list of some 35 relations (`wife` and `married`, `actor` and `played`) did
not help, because writers who change the word often change the fact. Only countries are tied to their demonyms.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk.stem.snowball import SnowballStemmer


def words_of(text: str) -> frozenset[str]:
    """The words of a list written as one text."""
    return frozenset(text.split())


#: Function words of English, and words that only frame a statement. They carry no content to verify.
STOP_WORDS = words_of(
    """
    a an the this that these those some any each every such same other another both either neither all
    most more less least few many much several various own i me my mine we us our ours you your yours he
    him his himself she her hers herself it its itself they them their theirs themselves who whom whose
    which what where when why how there here am is are was were be been being do does did doing done
    have has had having will would shall should can could may might must ought about above across after
    against along among amid around as at before behind below beneath beside besides between beyond by
    despite down during except for from in inside into like near of off on onto out outside over past
    per since through throughout to toward towards under until unto up upon via with within without and
    or but nor so yet if then than because although though while whereas whether also too very just even
    still already again ever once only rather quite almost always often usually sometimes mainly mostly
    primarily particularly especially notably currently later eventually now well however therefore thus
    hence moreover furthermore additionally meanwhile s t re ve ll d m
    """
)

NEGATIONS = words_of(
    """
    not no never none nobody nothing neither nor without cannot n't failed fails lacked lacks
    """
)

NUMBER_WORDS = {
    word: str(value)
    for value, words in enumerate(
        (
            "", "", "two twice second", "three third", "four fourth", "five fifth", "six sixth",
            "seven seventh", "eight eighth", "nine ninth", "ten tenth", "eleven eleventh", "twelve twelfth",
            "thirteen thirteenth", "fourteen fourteenth", "fifteen fifteenth", "sixteen sixteenth",
            "seventeen seventeenth", "eighteen eighteenth", "nineteen nineteenth", "twenty twentieth",
        )
    )
    for word in words.split()
}  # fmt: skip

MONTHS = words_of("january february march april may june july august september october november december")

# Country: its short names and the adjectives made from it.
_COUNTRIES = """
united-states: american americans usa u.s u.s.a us america
united-kingdom: british uk u.k britain
england: english england
scotland: scottish scots scotland
wales: welsh wales
ireland: irish ireland
france: french france
germany: german germany
italy: italian italy
spain: spanish spain
portugal: portuguese portugal
netherlands: dutch netherlands holland
belgium: belgian belgium
switzerland: swiss switzerland
austria: austrian austria
denmark: danish denmark
sweden: swedish sweden
norway: norwegian norway
finland: finnish finland
iceland: icelandic iceland
poland: polish poland
czechia: czech czechia
hungary: hungarian hungary
romania: romanian romania
bulgaria: bulgarian bulgaria
greece: greek greece
turkey: turkish turkey
russia: russian russia
ukraine: ukrainian ukraine
serbia: serbian serbia
croatia: croatian croatia
israel: israeli israel
lebanon: lebanese lebanon
syria: syrian syria
iraq: iraqi iraq
iran: iranian iran persian
saudi: saudi
egypt: egyptian egypt
morocco: moroccan morocco
nigeria: nigerian nigeria
ghana: ghanaian ghana
kenya: kenyan kenya
ethiopia: ethiopian ethiopia
tanzania: tanzanian tanzania
uganda: ugandan uganda
senegal: senegalese senegal
cameroon: cameroonian cameroon
zimbabwe: zimbabwean zimbabwe
india: indian india
pakistan: pakistani pakistan
bangladesh: bangladeshi bangladesh
nepal: nepalese nepali nepal
china: chinese china
japan: japanese japan
korea: korean korea
taiwan: taiwanese taiwan
vietnam: vietnamese vietnam
thailand: thai thailand
philippines: filipino filipina philippine philippines
indonesia: indonesian indonesia
malaysia: malaysian malaysia
australia: australian australia
canada: canadian canada
mexico: mexican mexico
brazil: brazilian brazil
argentina: argentine argentinian argentina
chile: chilean chile
colombia: colombian colombia
peru: peruvian peru
venezuela: venezuelan venezuela
cuba: cuban cuba
jamaica: jamaican jamaica
"""


def _table(text: str) -> dict[str, str]:
    table: dict[str, str] = {}
    key = ""
    for line in text.strip().splitlines():
        head, colon, rest = line.partition(":")
        if colon:
            key = f"={head.strip()}"
        for word in (rest if colon else head).split():
            table[word] = key
    return table


COUNTRIES = _table(_COUNTRIES)


@cache
def _stemmer() -> SnowballStemmer:
    # Importing nltk takes a second, and judges that are models never stem.
    from nltk.stem.snowball import SnowballStemmer

    return SnowballStemmer("english")


def fold(word: str) -> str:
    """Lower case, without accents: `Sörenstam` -> `sorenstam`."""
    lowered = word.lower()
    if lowered.isascii():
        return lowered
    return "".join(c for c in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(c))


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The Snowball (Porter 2) stem of a folded word."""
    return str(_stemmer().stem(word))


@lru_cache(maxsize=200_000)
def word_key(folded: str) -> str:
    """What a common word is compared by: `=country` for a demonym, else its stem."""
    return COUNTRIES.get(folded) or stem(folded)


@lru_cache(maxsize=200_000)
def name_key(folded: str) -> str:
    """What a name is compared by: `=country` for a country or demonym, else its whole form."""
    return COUNTRIES.get(folded) or folded
