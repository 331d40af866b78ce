"""The closed word classes and the few equivalences that the rules know. Small on purpose: no learnt vocabulary.

`key` maps a word to what is compared: its stem, or the relation or country that it expresses.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from nltk.stem.snowball import SnowballStemmer

#: Function words of English, and words that only frame a statement. They carry no content to verify.
STOP_WORDS = frozenset(
    ["a", "an", "the", "this", "that", "these", "those", "some", "any", "each", "every", "such", "same", "other", "another", "both", "either", "neither", "all", "most", "more", "less", "least", "few", "many", "much", "several", "various", "own", "i", "me", "my", "mine", "we", "us", "our", "ours", "you", "your", "yours", "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its", "itself", "they", "them", "their", "theirs", "themselves", "who", "whom", "whose", "which", "what", "where", "when", "why", "how", "there", "here", "am", "is", "are", "was", "were", "be", "been", "being", "do", "does", "did", "doing", "done", "have", "has", "had", "having", "will", "would", "shall", "should", "can", "could", "may", "might", "must", "ought", "about", "above", "across", "after", "against", "along", "among", "amid", "around", "as", "at", "before", "behind", "below", "beneath", "beside", "besides", "between", "beyond", "by", "despite", "down", "during", "except", "for", "from", "in", "inside", "into", "like", "near", "of", "off", "on", "onto", "out", "outside", "over", "past", "per", "since", "through", "throughout", "to", "toward", "towards", "under", "until", "unto", "up", "upon", "via", "with", "within", "without", "and", "or", "but", "nor", "so", "yet", "if", "then", "than", "because", "although", "though", "while", "whereas", "whether", "also", "too", "very", "just", "even", "still", "already", "again", "ever", "once", "only", "rather", "quite", "almost", "always", "often", "usually", "sometimes", "mainly", "mostly", "primarily", "particularly", "especially", "notably", "currently", "later", "eventually", "now", "well", "however", "therefore", "thus", "hence", "moreover", "furthermore", "additionally", "meanwhile", "s", "t", "re", "ve", "ll", "d", "m"]
)

NEGATIONS = frozenset(["not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "n't", "failed", "fails", "lacked", "lacks"])

NUMBER_WORDS = {
    word: str(value)
    for value, words in enumerate(
        (
            "zero", "one", "two twice second", "three third", "four fourth", "five fifth", "six sixth",
            "seven seventh", "eight eighth", "nine ninth", "ten tenth", "eleven eleventh", "twelve twelfth",
            "thirteen thirteenth", "fourteen fourteenth", "fifteen fifteenth", "sixteen sixteenth",
            "seventeen seventeenth", "eighteen eighteenth", "nineteen nineteenth", "twenty twentieth",
        )
    )
    for word in words.split()
}  # fmt: skip

MONTHS = (
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"]
)

# One line a relation: words that state the same fact about a person or a thing.
_RELATIONS = """
birth: born birth birthplace birthday native birthdate
death: died death dies deceased dead killed passed
marriage: married marry marries marriage wife husband spouse wed wedding
divorce: divorced divorce
child: son daughter child children kid kids
parent: father mother parent parents
sibling: brother sister sibling siblings
education: educated education studied study studies graduated graduate graduates attended attend attends student
    students alumnus alumna schooling degree
occupation: work works worked working job profession occupation career employed employee employment employer
residence: live lives lived living reside resides resided residing residence home
authorship: wrote write writes written writer author authored authors writing
founding: founded found founder founders co-founded cofounded cofounder co-founder founding establish established
    establishes establishing
award: award awards awarded prize prizes won win wins winner winning received receive receives recipient honor
    honour honored honoured
performance: act acts acted acting actor actress starred star stars starring appeared appear appears role roles
    played portrayed plays play playing player
direction: directed director direct directs directing
composition: composed composer composes composing
singing: sang sing singer sings singing vocalist vocals song songs
painting: painted painter paint paints painting paintings
film: film films movie movies
series: series show shows
team: team club squad
beginning: began begin begins begun start started starts debut debuted
ending: ended end ends finish finished
retirement: retired retire retires retirement
politics: politician politics political
law: lawyer attorney
medicine: physician doctor
military: army military soldier
teaching: taught teach teaches teacher professor teaching lecturer
leadership: led lead leads leader leading headed head heads chaired
election: elected election elections elect
service: served serve serves serving service
release: released release releases releasing published publish publishes publication
album: album albums lp
size: tall height
cause: cause causes caused causing due result results resulting
treatment: treat treats treated treatment treating therapy
symptom: symptom symptoms sign signs
discovery: discovered discover discoverer discovers discovery described
"""

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


RELATIONS = _table(_RELATIONS)
COUNTRIES = _table(_COUNTRIES)

_STEMMER = SnowballStemmer("english")


def fold(word: str) -> str:
    """Lower case, without accents: `Sörenstam` -> `sorenstam`."""
    lowered = word.lower()
    if lowered.isascii():
        return lowered
    return "".join(c for c in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(c))


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The Snowball (Porter 2) stem of a folded word."""
    return str(_STEMMER.stem(word))


@lru_cache(maxsize=200_000)
def key(word: str) -> str:
    """What a folded word is compared by: `=relation`, `=country`, a number's digits, or its stem."""
    return RELATIONS.get(word) or COUNTRIES.get(word) or NUMBER_WORDS.get(word) or stem(word)
