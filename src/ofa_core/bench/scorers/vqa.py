"""VQA accuracy over ten people's answers, with the published normalisation of answers (Antol et al., 2015)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ...errors import OFAError, shown

#: Marks that are deleted or become spaces. Full stops have a rule of their own; apostrophes, colons and signs stay.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile("[0-9],[0-9]")
_FULL_STOP = re.compile(r"\.(?![0-9])")
#: So many full stops go, and no more: in the published code a flag stands where the count of replacements belongs.
_FULL_STOPS = 32
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}

#: Contractions that are restored where one of their apostrophes is missing.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_an_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


_RESTORED = {short: word for word in _CONTRACTIONS.split() for short in _without_an_apostrophe(word)}
_RESTORED["somebody'd"] = "somebodyd"  # the one entry that is the wrong way round in the published table


def strip_answer(text: str) -> str:
    """An answer without white space around it, line breaks and tabs as spaces: done to every answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def strip_punctuation(text: str) -> str:
    """The first step of the normalisation; case is still there.

    A mark goes if it touches a space anywhere in the text, or if any number in it has a comma; else it becomes a space.
    """
    joined = _COMMA_IN_NUMBER.search(text) is not None
    new: dict[str, str | int | None] = {
        mark: "" if joined or f"{mark} " in text or f" {mark}" in text else " " for mark in _MARKS
    }
    return _FULL_STOP.sub("", text.translate(str.maketrans(new)), count=_FULL_STOPS)


def normalize_words(text: str) -> str:
    """The second step: lower case, number words as digits, no articles, contractions with their apostrophes."""
    # Letter by letter, as Python 2 did: the dotted capital I becomes one letter, and no sigma a final one.
    words = "".join(letter.lower()[0] for letter in text).split()
    digits = (_NUMBER_WORDS.get(word, word) for word in words)
    return " ".join(_RESTORED.get(word, word) for word in digits if word not in _ARTICLES)


def normalize_answer(text: str) -> str:
    """Normalise an answer as the published evaluation does before it compares."""
    return normalize_words(strip_punctuation(strip_answer(text)))


#: The fewest people whose answers can make an answer wholly right.
FEWEST_PEOPLE = 4


def answer_accuracy(answer: str, answers: Sequence[str], *, distinct: bool = True) -> float:
    """Score one answer against those of people.

    Each person's answer is left out in turn, and three equal ones among the rest make the answer right; the accuracy is
    the mean. Nothing is normalised where all people agree, as published.

    Args:
        answer: the model's.
        answers: people's, ten in VQA.
        distinct: whether each has a number of its own. Where the data give all the same, equal answers count as one
            person's, and leaving one out leaves out all of them.

    Returns:
        A share of 1.

    Raises:
        OFAError: there are no answers, one text instead of several, or something else than texts.
    """
    if isinstance(answers, str) or not answers or not all(isinstance(text, str) for text in answers):
        raise OFAError(f"answers are the texts of several people, not {shown(answers)}")
    if not isinstance(answer, str):
        raise OFAError(f"an answer is a text, not {shown(answer)}")
    given, people = strip_answer(answer), [strip_answer(text) for text in answers]
    if len(set(people)) > 1:
        given, people = normalize_answer(given), [normalize_answer(text) for text in people]
    equal = people.count(given)
    scores = []
    for person in people:
        left_out = (1 if distinct else equal) if person == given else 0
        scores.append(min(1.0, (equal - left_out) / 3))
    return sum(scores) / len(scores)


def soft_label(answer: str, labels: Mapping[str, float]) -> float:
    """The score that OFA itself logs: what the data give for exactly this text, 0 for any other."""
    return labels.get(answer, 0.0)


class VqaScorer:
    """Mean accuracy, overall and by the types of answers and of questions."""

    def __init__(self) -> None:
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add(
        self,
        answer: str,
        answers: Sequence[str],
        answer_type: str = "",
        question_type: str = "",
        *,
        distinct: bool = True,
    ) -> float:
        """Return the accuracy of one answer, and count it.

        Args:
            answer: the model's.
            answers: people's, ten in VQA.
            answer_type: the data's name for the kind of answer, if there is one.
            question_type: the data's name for the kind of question, if there is one.
            distinct: as in :func:`answer_accuracy`.

        Raises:
            OFAError: there are no answers, one text instead of several, or something else than texts.
        """
        accuracy = answer_accuracy(answer, answers, distinct=distinct)
        types = [("answer", answer_type), ("question", question_type)]
        for name in ("accuracy", *(f"{kind}: {type_}" for kind, type_ in types if type_)):
            self._scores[name].append(accuracy)
        return accuracy

    def result(self) -> dict[str, float]:
        """``accuracy``, ``answer: yes/no`` and the other types of answers, ``question: is the`` and so on."""
        order = sorted(self._scores, key=lambda name: (name != "accuracy", name))
        return {name: sum(self._scores[name]) / len(self._scores[name]) for name in order}
