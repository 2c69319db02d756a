"""Samples of the published scorers: the part of each row that they need, and the table of scores that they make."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np

from ..errors import OFAError
from ..text.normalize import without_punctuation
from ..vision.boxes import Box
from .metrics import HEADLINE_THRESHOLD, Derived, Floats, Table, pair_iou, ratio
from .reliability import Ranking, Stated, with_calibration_errors
from .results import Detected, Row, Target
from .sample_scores import NumberSamples, Places, Samples, stated_confidence, told_of
from .scorers.captions import BLEU_COUNTS, BLEU_ORDERS, CaptionScorer, bleu_scores, rouge_l
from .scorers.choices import rank_of
from .scorers.detection import DetectionScorer, coco_iou
from .scorers.grefcoco import compare_boxes
from .scorers.ptb_tokens import ptb_lines
from .scorers.ref_l4 import REPORTED, SIZES, compare_box, renamed_classes, size_of
from .scorers.vqa import FEWEST_PEOPLE, answer_accuracy, soft_label

#: Decimals to which sides of boxes are rounded: corners were sums, and COCO's sides have two decimals.
_DECIMALS = 6


def required_targets(row: Row) -> tuple[Target, ...]:
    """The boxes that were due, of which there may be none.

    Raises:
        OFAError: the row does not tell.
    """
    if row.targets is None:
        raise OFAError(f"sample {row.id!r} has no targets, which its task is scored by")
    return row.targets


class GrefcocoSamples(NumberSamples):
    """Phrases for any number of boxes. Every box that a model names counts, whatever its confidence."""

    _EXACT, _PLAIN = "Pr@(F1=1)", "Pr@(F1=1), plain IoU"
    _NONE, _NONE_RIGHT, _SOME, _SOME_FOUND = _COUNTS = (
        "nothing due",
        "nothing due or found",
        "something due",
        "something due and found",
    )
    _MISSED, _FIRST, _CONFIDENCE, _PRESENT = _HIDDEN = ("something due, none found", "first right", "sure", "there")

    def __init__(self) -> None:
        names = (self._EXACT, self._PLAIN, "presence", *self._COUNTS, *self._HIDDEN)
        super().__init__(dict.fromkeys(names, lambda row: 0.0))

    def add(self, row: Row) -> None:
        """Take in one row."""
        due, found = [one.box for one in required_targets(row)], [one.box for one in row.detected]
        exact, plain = compare_boxes(due, found)
        some, named = bool(due), bool(found)
        counts = (not some, not some and not named, some, some and named)
        first = named and max((pair_iou(box, found[0], "refcoco") for box in due), default=0.0) >= HEADLINE_THRESHOLD
        present = math.nan if row.present is None else row.present
        told = (some and not named, first, stated_confidence(row), present)
        for numbers, value in zip(self._numbers.values(), (exact, plain, some == named, *counts, *told), strict=True):
            numbers.append(value)

    def whole_table(self) -> Table:
        """The numbers of all samples, and how well they tell what is there from what is not."""
        columns, stated = self.kept(), self.stated()
        derived = {
            "N-acc": ratio(self._NONE_RIGHT, self._NONE),
            "T-acc": ratio(self._SOME_FOUND, self._SOME),
            "no box, absent": ratio(self._NONE_RIGHT, self._NONE),
            "no box, present": ratio(self._MISSED, self._SOME),
        }
        kept = {name: column for name, column in columns.items() if name not in (self._CONFIDENCE, self._PRESENT)}
        hidden = frozenset({*self._COUNTS, *self._HIDDEN}) & kept.keys()
        whole = partial(_presence_auroc, stated["presence"]) if "presence" in stated else None
        return with_calibration_errors(Table(kept, derived, hidden, whole), stated)

    def stated(self) -> dict[str, Stated]:
        """The confidence in the first box, and the probability that anything is there, where rows tell them."""
        columns = self.kept()
        confidence = Stated(columns[self._CONFIDENCE], columns[self._FIRST] > 0)
        presence = Stated(columns[self._PRESENT], columns[self._SOME] > 0)
        return told_of({"confidence": confidence, "presence": presence})

    def quality(self, row: Row) -> float:
        """1 where exactly the right boxes were named."""
        return float(compare_boxes([one.box for one in row.targets or ()], [one.box for one in row.detected])[0])


def _presence_auroc(stated: Stated, taken: Floats) -> dict[str, Floats]:
    """The AUROC [R] of stated presence, by how often each sample is taken, [R, N]."""
    ranking = Ranking(stated.probabilities, stated.came_true)
    return {"presence AUROC": np.array([ranking.auroc(row * stated.counted) for row in taken])}


class RefL4Samples(NumberSamples):
    """Phrases for one box, by Ref-L4's thresholds, sizes and classes."""

    def __init__(self) -> None:
        super().__init__(
            {
                "mean_iou": lambda row: self._take(row),
                "with_box": lambda row: row.found is not None,
                "confidence": stated_confidence,
            }
        )
        self._correct: dict[str, array[float]] = {name: array("d") for name in (*REPORTED, "mAcc")}
        self._sizes: list[str] = []
        self._classes: list[str] = []

    def _take(self, row: Row) -> float:
        if row.box is None:
            raise OFAError(f"sample {row.id!r} has no target box, which its task is scored by")
        iou, correct = compare_box(row.box, row.found)
        for name, numbers in self._correct.items():
            numbers.append(correct.mean() if name == "mAcc" else correct[REPORTED[name]])
        x0, y0, x1, y1 = row.box
        self._sizes.append(size_of(round(x1 - x0, _DECIMALS) * round(y1 - y0, _DECIMALS)))
        self._classes.append(renamed_classes().get(row.category, row.category))
        return iou

    def whole_table(self) -> Table:
        """The numbers of all samples."""
        columns = {name: np.array(numbers) for name, numbers in self._correct.items()} | self.kept()
        del columns["confidence"]
        derived: dict[str, Derived] = {}
        hidden: dict[str, Floats] = {}
        for size in SIZES:
            of_size = np.array([one == size for one in self._sizes], dtype=np.float64)
            hidden[size] = of_size
            for name in ("acc@0.5", "mAcc"):
                hidden[f"{size}, {name}"] = of_size * columns[name]
                derived[f"{size} {name}"] = ratio(f"{size}, {name}", size)
        _, classes = np.unique(self._classes, return_inverse=True)
        scored = {f"class {name}": columns[name] for name in ("acc@0.5", "mAcc")}
        table = Table(columns | hidden, derived, frozenset(hidden), partial(_class_means, classes, scored))
        return with_calibration_errors(table, self.stated())

    def stated(self) -> dict[str, Stated]:
        """The confidence in boxes, where some rows tell one."""
        right = np.array(self._correct["acc@0.5"]) > 0
        return told_of({"confidence": Stated(self.kept()["confidence"], right)})

    def quality(self, row: Row) -> float:
        """The IoU."""
        return row.iou or 0.0


def _class_means(classes: Places, columns: Mapping[str, Floats], taken: Floats) -> dict[str, Floats]:
    """The means [R] over classes of each column's mean in a class, by how often each sample is taken, [R, N]."""

    def mean(column: Floats, row: Floats) -> float:
        counts = np.bincount(classes, weights=row)
        there = counts > 0
        return float(np.mean(np.bincount(classes, weights=row * column)[there] / counts[there]))

    return {name: np.array([mean(column, row) for row in taken]) for name, column in columns.items()}


class CaptionSamples(Samples):
    """Captions beside all that people wrote about their pictures.

    All ASCII punctuation goes from a model's caption before it is compared, as in OFA's own evaluation.
    """

    def __init__(self) -> None:
        self._candidates: list[str] = []
        self._references: list[tuple[str, ...]] = []

    def add(self, row: Row) -> None:
        """Take in one row."""
        if not row.references:
            raise OFAError(f"sample {row.id!r} has no references, which its task is scored by")
        self._candidates.append(without_punctuation(row.output))
        self._references.append(row.references)

    def table(self, places: Places | None = None) -> Table:
        """The numbers of all samples, or of some as if there were no others: words are rare among those alone."""
        scorer = CaptionScorer()
        for place in range(len(self._candidates)) if places is None else places.tolist():
            scorer.add(self._candidates[place], self._references[place])
        pictures = scorer.by_picture()
        counts = np.array([picture.counts.as_row() for picture in pictures], dtype=np.float64)
        counts = counts.reshape(len(pictures), len(BLEU_COUNTS))
        columns = {
            "CIDEr": np.array([picture.cider for picture in pictures]),
            **{name: counts[:, place] for place, name in enumerate(BLEU_COUNTS)},
            "ROUGE-L": np.array([picture.rouge_l for picture in pictures]),
        }
        bleus = {f"BLEU-{order}": Derived(BLEU_COUNTS, partial(_bleu, order)) for order in BLEU_ORDERS}
        return Table(columns, bleus, frozenset(BLEU_COUNTS))

    def quality(self, row: Row) -> float:
        """ROUGE-L, which needs no other pictures."""
        candidate, *references = ptb_lines([without_punctuation(row.output), *row.references])
        return rouge_l(candidate, references)


def _bleu(order: int, sums: Floats) -> Floats:
    return bleu_scores(sums)[..., order - 1]


class VqaSamples(Samples):
    """Answers beside those of people, or beside the weights that data give to answers."""

    def __init__(self) -> None:
        self._official, self._soft = array("d"), array("d")
        self._types: list[str] = []

    def add(self, row: Row) -> None:
        """Take in one row."""
        if not row.references and not row.weights:
            raise OFAError(f"sample {row.id!r} has no people's answers, which its task is scored by")
        if row.references:
            self._official.append(_accuracy(row))
        if row.weights:
            self._soft.append(soft_label(row.output, row.weights))
        self._types.append(str(row.kept.get("answer_type", "")))

    def table(self, places: Places | None = None) -> Table:
        """The numbers of all samples, or of some.

        Raises:
            OFAError: some rows tell people's answers or weights, and others do not.
        """
        named = {"accuracy": self._official, "soft_label": self._soft}
        for name, numbers in named.items():
            if numbers and len(numbers) < len(self._types):
                raise OFAError(f"{len(numbers)} of {len(self._types)} samples have a score {name}; all or none should")
        scores = {name: np.array(numbers) for name, numbers in named.items() if numbers}
        first = next(iter(scores.values()), np.zeros(0))
        derived: dict[str, Derived] = {}
        hidden: dict[str, Floats] = {}
        for kind in sorted({*self._types} - {""}):
            of_kind = np.array([one == kind for one in self._types], dtype=np.float64)
            hidden |= {f"of {kind}": of_kind, f"right of {kind}": of_kind * first}
            derived[f"answer: {kind}"] = ratio(f"right of {kind}", f"of {kind}")
        table = Table((scores or {"accuracy": first}) | hidden, derived, frozenset(hidden))
        return table if places is None else table.at(places)

    def quality(self, row: Row) -> float:
        """The accuracy, or the answer's weight."""
        return _accuracy(row) if row.references else soft_label(row.output, row.weights)


def _accuracy(row: Row) -> float:
    if len(row.references) < FEWEST_PEOPLE:
        told = f"{len(row.references)} people answered, and at least {FEWEST_PEOPLE} should have"
        raise OFAError(f"sample {row.id!r}: {told} for the accuracy of VQA")
    distinct = row.kept.get("answer_ids_distinct", True) is not False
    return answer_accuracy(row.output, row.references, distinct=distinct)


class ChoiceSamples(NumberSamples):
    """Choices among labels, of which a row holds the likeliest in their order."""

    #: Labels that a row holds.
    RANKS = (1, 5)

    def __init__(self) -> None:
        super().__init__({f"top-{rank}": partial(_among_first, rank) for rank in self.RANKS})


def _among_first(rank: int, row: Row) -> float:
    if not row.probabilities:
        raise OFAError(f"sample {row.id!r} has no probabilities of labels, which its task is scored by")
    place = rank_of(row.target, list(row.probabilities))
    return place is not None and place < rank


class LikelihoodSamples(NumberSamples):
    """Texts that people wrote, and how likely their tokens are to a model."""

    _SUM, _TOKENS = "log-probability", "tokens"

    def __init__(self) -> None:
        super().__init__(
            {
                "token_probability": lambda row: math.exp(_summed(row) / len(row.log_probs)),
                self._SUM: _summed,
                self._TOKENS: lambda row: len(row.log_probs),
            }
        )

    def whole_table(self) -> Table:
        """The numbers of all samples."""
        inputs = (self._SUM, self._TOKENS)
        derived = {"perplexity": Derived(inputs, _perplexity), "bits_per_token": Derived(inputs, _bits)}
        return Table(self.kept(), derived, frozenset(inputs))

    def quality(self, row: Row) -> float:
        """The geometric mean of the tokens' probabilities."""
        return math.exp(_summed(row) / len(row.log_probs))


def _summed(row: Row) -> float:
    if not row.log_probs or max(row.log_probs) > 0:
        raise OFAError(f"sample {row.id!r} has no log-probabilities of its target, which its task is scored by")
    return math.fsum(row.log_probs)


def _perplexity(sums: Floats) -> Floats:
    return np.exp(np.minimum(-sums[..., 0] / sums[..., 1], math.log(np.finfo(np.float64).max)))


def _bits(sums: Floats) -> Floats:
    return np.asarray(-sums[..., 0] / sums[..., 1] / math.log(2))


class DetectionSamples(Samples):
    """Everything in a picture, scored as COCO is. Names are compared without regard to case."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._rows: list[tuple[tuple[Target, ...], tuple[Detected, ...]]] = []
        self._f1 = array("d")

    def add(self, row: Row) -> None:
        """Take in one row."""
        self._ids.append(row.id)
        self._rows.append((required_targets(row), row.detected))
        self._f1.append(self.quality(row))

    def table(self, places: Places | None = None) -> Table:
        """The numbers of all samples, or of some."""
        numbers = self._numbers()

        @cache
        def scorer() -> DetectionScorer:  # built where it is needed
            return self._scorer(numbers)

        def scores(taken: Floats) -> dict[str, Floats]:
            found = scorer().results(dict(zip(numbers, taken.T, strict=True)))
            return {name: np.where(values < 0, np.nan, values) for name, values in found.items()}

        table = Table({"F1@0.5": np.array(self._f1)}, whole=scores)
        return table if places is None else table.at(places)

    def _numbers(self) -> list[int]:
        """The pictures' numbers, which order detections of equal scores: COCO's own where all ids are such."""
        own = [int(id) for id in self._ids if id.isdecimal()]
        return own if len({*own}) == len(self._ids) else list(range(len(self._ids)))

    def _scorer(self, numbers: Sequence[int]) -> DetectionScorer:
        names = sorted({_plain(one.label) for targets, _ in self._rows for one in targets})
        classes = {name: number for number, name in enumerate(names)}
        scorer = DetectionScorer(classes.values())
        for number, (targets, detected) in zip(numbers, self._rows, strict=True):
            boxes = [_sides(one.box) for one in targets]
            scorer.add(
                number,
                boxes,
                [classes[_plain(one.label)] for one in targets],
                [_sides(one.box) for one in detected],
                [classes.get(_plain(one.label), len(classes)) for one in detected],
                [one.score for one in detected],
                [box[2] * box[3] if one.area is None else one.area for one, box in zip(targets, boxes, strict=True)],
                [one.crowd for one in targets],
            )
        return scorer

    def quality(self, row: Row) -> float:
        """F1 of the picture at an IoU of 0.5, crowds left out; 1 where nothing was due and nothing named."""
        due = [one for one in row.targets or () if not one.crowd]
        right = sum(
            _pairs([one.box for one in due if _plain(one.label) == name], [one.box for one in found])
            for name, found in _by_name(row.detected).items()
        )
        count = len(due) + len(row.detected)
        return 2 * right / count if count else 1.0


def _plain(label: str) -> str:
    return " ".join(label.lower().split())


def _by_name(detected: Sequence[Detected]) -> dict[str, list[Detected]]:
    named: dict[str, list[Detected]] = {}
    for one in detected:
        named.setdefault(_plain(one.label), []).append(one)
    return named


def _sides(box: Box) -> tuple[float, float, float, float]:
    """Left, top, width and height of a box; one with corners in the wrong order has no area, and so finds nothing."""
    x0, y0, x1, y1 = box
    return (x0, y0, max(round(x1 - x0, _DECIMALS), 0.0), max(round(y1 - y0, _DECIMALS), 0.0))


def _pairs(due: Sequence[Box], found: Sequence[Box], least: float = 0.5) -> int:
    """Count the boxes that were found, each by one box, the largest overlaps first."""
    if not due:
        return 0
    said, wanted = (np.array([_sides(box) for box in boxes]) for boxes in (found, due))
    overlaps = coco_iou(said, wanted, np.zeros(len(due), dtype=bool))
    for count in range(min(overlaps.shape)):
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        if overlaps[row, column] < least:
            return count
        overlaps[row], overlaps[:, column] = 0.0, 0.0
    return min(overlaps.shape)
