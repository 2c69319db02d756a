"""The kinds of token that captions are made of, as the reference of :mod:`.ptb_tokens` tells them apart.

Every kind is a pattern whose group 1 is the token; the rest of a match is what has to follow it. Names in braces stand
for parts, which are patterns too.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

#: Characters beyond ASCII, by what they may be in.
_CHARACTERS = Path(__file__).with_name("ptb_characters.txt")

# Abbreviations that keep their full stop. Those of the first list may end a sentence too: they are no part of a word
# of one letter more, such as "etc.s".
_MAY_END = """
    al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla
    fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt
    sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
"""
_TITLES = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov
    govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps rev
    sen sens sfc sgt spc st ste supt supts treas vs wm
"""
# Those that are ordinary words unless capitalised, and those that keep it before a number alone.
_CAPITALISED = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"

# Words that begin a sentence, so that the full stop of a single letter before them ends one.
_STARTERS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once One
    Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
"""

# What files are called behind their last full stop.
_EXTENSIONS = """
    bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql
    tar txt wav x xml zip
"""


def _any_of(words: str) -> str:
    """A pattern for any of some words in any case; the longest come first."""
    return f"(?i:{'|'.join(sorted(words.split(), key=lambda word: (-len(word), word)))})"


def _capitalised(words: str) -> str:
    """A pattern for any of some words, whose first letters are capitals and whose others may be."""
    return f"(?:{'|'.join(f'{word[0]}(?i:{word[1:]})' for word in words.split())})"


_PARTS = {
    # Apostrophes, those and what is typed for them, hyphens, quotes that come in pairs, white space.
    "A": "(?:['\u0092\u2019]|&apos;)",
    "Q": "(?:['\u0092\u2019`\u0091\u2018\u201b]|&apos;)",
    "H": "[-_\u058a\u2010\u2011]",
    "QUOTE": "[`\u00ab\u00bb\u0082\u0084\u0091-\u0094\u2018-\u201f\u2039\u203a]",
    "SP": "[ \t\n\u00a0]",
    # What is left of "is", "are", "have" and the like.
    "VERB": "(?:[msdMSD]|(?i:re|ve|ll))",
    # Words; with hyphens; with hyphens behind numbers or abbreviations; R&D.
    "WORD": "{L}{LD}*(?:[.!?]{L}{LD}*)*",
    "THING": "(?:[dDoOlL]{Q}{LD})?{LD}+(?:{H}(?:[dDoOlL]{Q}{LD})?{LD}+)*",
    "HYPHENED": r"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\u00ad]+))+",
    "CAPITALS": "[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+",
    "MAYEND": f"(?:{_any_of(_MAY_END)}|(?i:ph|ed)\\.[dD]|{_capitalised(_CAPITALISED)}|(?i:pp?t)[ey]s?)\\.",
    "TITLE": f"(?:{_any_of(_TITLES)}|[Mm][ft]g)\\.",
    "NUMBER": "(?:{D}*(?:[.:,\u00ad\u066b\u066c]{D}+)+|{D}+)",
    "PATH": r"/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-]",
    "MAIL": (
        r"[A-Za-z0-9][^ \t\n\f\r\"<>|(){}\u00a0]*@"
        r"(?:[^ \t\n\f\r\"<>|(){}.\u00a0]+\.)*[^ \t\n\f\r\"<>|(){}.\u00a0]+"
    ),
    "TAG": (
        r"<(?:[!?][A-Za-z-][^>\n]*|/?[A-Za-z][A-Za-z0-9:._-]*"
        r"(?: +[A-Za-z][A-Za-z0-9:._-]*(?: *= *(?:\"[^\"<>]*\"|'[^'<>]*'))?)* */? *)>"
    ),
    "PHONE": (
        r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
        r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}"
    ),
}

#: Words that are two tokens, in lower case.
SPLIT_WORDS = frozenset(["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"])

# On equal lengths, the earlier kind wins.
_KINDS = (
    # Words of two parts
    r"((?i:can(?=not)|gon(?=na)|got(?=ta)|lem(?=me)|gim(?=me)|wan(?=na)))(?i:not|na|ta|me)",
    "('[tT])(?i:is|was)",
    "({WORD}){A}{VERB}",
    "([A-Za-z]*[A-MO-Za-mo-z])[nN]{Q}[tT]",
    "({A}{VERB})(?:[^A-Za-z]|$)",
    "([\u2019\u0092]{VERB})",
    "([nN]{Q}[tT])",
    # Addresses
    r"((?i:https?://)[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},-])",
    r"((?i:www\.)(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}(?:{PATH})?)",
    r"((?:[^ \t\n\f\r\"`'<>|!?(){},-_$]+\.)+(?i:com|net|org|edu)(?:{PATH})?)",  # from the comma to the underscore
    "((?:<|&lt;)?{MAIL}(?:>|&gt;)?)",
    "(@[A-Za-z_][A-Za-z_0-9]*)",
    "(#{L}+)",
    # Words and abbreviations
    "({WORD})",
    r"({MAYEND})[\s\S]{2}",
    "({MAYEND}|{TITLE})",
    f"({_any_of(_BEFORE_NUMBERS)}\\.){{SP}}?{{D}}",
    f"([A-Za-z])\\.{{SP}}+(?:{_capitalised(_STARTERS)}|M(?i:[rs])\\.|{{TAG}}){{SP}}",
    r"([A-Za-z](?:\.[A-Za-z])*\.)",
    r"((?:{WORD}|{THING}|{HYPHENED}|{CAPITALS})\.)[,;:\u3001]",
    # Other words
    "({THING})",
    "({HYPHENED})",
    "({CAPITALS})",
    r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
    r"([cC]\+\+|[cCfF]#)",
    f"({{LD}}+(?:\\.{{LD}}+)*\\.{_any_of(_EXTENSIONS)})[ \t\n\u00a0.?!,]",
    # Words that keep an apostrophe
    "({A}[nN])(?:{SP}|$)",
    "([\u2019\u0092][nN])",
    "({A}[nN]{A}|[lLdDjJ]{A}|(?i:dunkin|somethin|ol){A}|{A}(?i:em|cause|till?)|{A}[2-9]0[sS])",
    "({A}[0-9][0-9]){SP}",
    "([A-HJ-XZn]{Q}{L}{L}+)",
    "({L}+[aeiouyAEIOUY]{Q}[aeiouA-Z]{L}*)",
    r"((?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|cap{A}n|c{A}est|o{Q}o))",
    "([yY]{A}){L}",
    # Numbers
    "([-+]?{NUMBER})",
    "({D}{1,2}[-/]{D}{1,2}[-/]{D}{2,4})",
    r"((?:{D}{1,4}[- \u00a0])?{D}{1,4}(?:\\?/|\u2044){D}{1,4})",
    "([\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+))",
    "({PHONE})",
    r"((?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5})",
    r"([A-Z]*\$)",
    # Marks: tags, faces, names of brackets, entities, runs of one mark, any other
    "({TAG})",
    r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]",
    r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\))",
    r"(-(?:[LR][RCS]B|[lr][rcs]b)-|(?i:pro|anti)-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|C\.D\.s)",
    "(&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);|&(?i:amp|lt|gt|quot|apos|nbsp|md|mdash|ndash);)",
    r"((?:\\\*){1,3}|\*+|@+|#+|_+|[?!]+|-+|\.{3,5}|(?:\.[ \u00a0]){2,4}\.|<<|>>|''|{QUOTE}{QUOTE}?)",
    r"([!-/:-@\[-`{-~]|{S})",
)


@cache
def kinds() -> tuple[re.Pattern[str], ...]:
    """Return the kinds of token, of which the longest counts and the first of equal ones."""
    letters, digits, symbols = _character_classes()
    accented = "&[aeiouAEIOU](?:acute|grave|uml);"
    characters = {
        "L": f"(?:[A-Za-z{letters}]|{accented})",
        "D": f"[0-9{digits}]",
        "LD": f"(?:[A-Za-z0-9{letters}{digits}]|{accented})",
        "S": f"[{symbols}]",
    }
    return tuple(re.compile(_filled(kind, _PARTS | characters)) for kind in _KINDS)


def _filled(pattern: str, parts: dict[str, str]) -> str:
    """A pattern with the parts that it names in braces, and theirs."""
    return re.sub(r"\{([A-Z]+)\}", lambda name: _filled(parts[name[1]], parts), pattern)


def _character_classes() -> list[str]:
    """The inside of a pattern's class for letters, for digits and for symbols beyond ASCII."""
    classes: dict[str, list[str]] = {}
    heading = ""
    for line in _CHARACTERS.read_text(encoding="ascii").splitlines():
        if line.startswith("["):
            heading = line.strip("[]")
        elif not line.startswith("#"):
            ranges = (re.sub(r"\w+", lambda code: f"\\u{code[0]}", codes) for codes in line.split())
            classes.setdefault(heading, []).extend(ranges)
    return ["".join(classes[name]) for name in ("letters", "digits", "symbols")]
