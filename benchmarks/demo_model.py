"""Figures of the demo model: several boxes and none, how sure it is, ambiguity, and where it looks, in one table.

    python -m benchmarks.demo_model [--model demo] [--count 300] [--only presence several ...]

All pictures are of the test split, from a seed on that no other figure uses; what is fitted, is fitted to pictures of
the training split.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image

import ofa_core
from ofa_core import OFA
from ofa_core.bench.calibration import Outcomes, fit, outcomes
from ofa_core.bench.evaluate import evaluate
from ofa_core.bench.reliability import auroc, calibration_error
from ofa_core.bench.samples import Settings
from ofa_core.bench.scorers.grefcoco import compare_boxes
from ofa_core.demo.dialogs import open_dialog
from ofa_core.demo.files import phrase_of, write_dataset
from ofa_core.demo.language import caption, groups, phrase, vague_phrase
from ofa_core.demo.world import Scene, Split, Thing, draw, make_scene
from ofa_core.heads.confidence import along, confidence_of
from ofa_core.heads.grounding import SPEC
from ofa_core.heads.pipeline import Pipeline
from ofa_core.heads.questioner import ambiguities
from ofa_core.vision.boxes import Box, box_iou

#: The first picture's seed.
FIRST = 6_000_000
BATCH_SIZE = 32


@dataclass(frozen=True)
class Figure:
    """A measured figure, with what it should be, "" where nothing is."""

    name: str
    value: float
    target: str = ""


@dataclass(frozen=True)
class Phrase:
    """A phrase about a scene, and the shapes that it means."""

    scene: Scene
    picture: Image.Image
    words: str
    things: list[Thing]

    @property
    def boxes(self) -> list[Box]:
        """Their boxes."""
        return [thing.box for thing in self.things]


def scenes(count: int, split: Split) -> Iterator[Scene]:
    """The scenes of a measurement."""
    return (make_scene(seed, split) for seed in range(FIRST, FIRST + count))


def phrases(count: int, split: Split, kinds: tuple[str, ...]) -> list[Phrase]:
    """A phrase of each of ``kinds`` for each scene that has one: of ``one`` shape, of ``several`` or of ``none``."""
    found = []
    for scene in scenes(count, split):
        picture = draw(scene)
        for kind in kinds:
            one = phrase_of(kind, scene, Random(f"{kind} {scene.seed}"))
            found += [] if one is None else [Phrase(scene, picture, *one)]
    return found


def there_or_not(pipeline: Pipeline, asked: list[Phrase]) -> Outcomes:
    """The outcomes of phrases without a calibration."""
    lists = [one.picture for one in asked], [one.words for one in asked], [one.boxes for one in asked]
    return outcomes(pipeline, *lists, "argmax", BATCH_SIZE)


def presence(ofa: OFA, count: int) -> Iterator[Figure]:
    """Things that are there and things that are not, told by boxes, by asking, and by both."""
    pipeline = ofa.pipeline.for_task(SPEC)
    asked = phrases(count, "test", ("one", "none"))
    found = there_or_not(pipeline, asked)
    yes = [one.yes for one in ofa.is_present([a.picture for a in asked], [a.words for a in asked])]
    calibration = fit(there_or_not(pipeline, phrases(count, "train", ("one", "none"))))
    told = [along(calibration.present, value) for value in found.evidence]
    both = [(first + second) / 2 for first, second in zip(told, yes, strict=True)]
    for name, values in (("boxes", told), ("bin_check", yes), ("both", both)):
        yield Figure(f"AUROC present/absent, by {name}", auroc(values, found.there) or 0, ">= 0.95")
        yield Figure(f"calibration error of present, by {name}", calibration_error(values, found.there))
        right = [(value >= 0.5) == there for value, there in zip(values, found.there, strict=True)]
        yield Figure(f"present or absent, right by {name}", mean(right))
    least = calibration.least_present
    for kind, there in (("absent", False), ("present", True)):
        boxes = [value < least for value, own in zip(told, found.there, strict=True) if own == there]
        yield Figure(f"no box for {kind} phrases, calibrated", mean(boxes))
    sure = [confidence_of(value, calibration) for value in found.expected]
    yield Figure("calibration error of confidence", calibration_error(sure, [iou >= 0.5 for iou in found.overlaps]))
    due = [iou >= 0.5 for iou, one in zip(found.overlaps, found.there, strict=True) if one]
    yield Figure("Acc@0.5 of phrases of one shape", mean(due))


def mean(values: Sequence[bool]) -> float:
    """The share that is true."""
    return sum(values) / max(1, len(values))


def overlaps(box: Box | None, things: Sequence[Thing]) -> bool:
    """Tell whether a box is that of one of some shapes."""
    found = torch.tensor(box or (0.0, 0.0, 0.0, 0.0))
    return any(float(box_iou(found, torch.tensor(thing.box))) >= 0.5 for thing in things)


def regions(ofa: OFA, count: int) -> Iterator[Figure]:
    """Every region of a phrase: of one that means several, and of one that may mean any of several."""
    vague = []
    for scene in scenes(count, "test"):
        words = vague_phrase(scene, Random(f"vague {scene.seed}"))
        vague += [] if words is None else [Phrase(scene, draw(scene), *words)]
    for kind, asked in (("plural", phrases(count, "test", ("several",))), ("ambiguous", vague)):
        found = ofa.ground([a.picture for a in asked], [a.words for a in asked], all=True, batch_size=BATCH_SIZE)
        exact, right, named, due = [], 0, 0, 0
        for one, phrase_asked in zip(found, asked, strict=True):
            boxes = [region.box for region in one.regions] or ([one.box] if one.box else [])
            exact.append(compare_boxes(phrase_asked.boxes, boxes)[1])
            right += sum(overlaps(box, phrase_asked.things) for box in boxes)
            named, due = named + len(boxes), due + len(phrase_asked.things)
        yield Figure(f"all=True, {kind} phrases: exactly the right regions", mean(exact))
        yield Figure(f"all=True, {kind} phrases: F1", 2 * right / max(1, named + due))


def captions(ofa: OFA, count: int) -> Iterator[Figure]:
    """The phrases of captions that name a colour and a kind, each with a box of such a shape."""
    drawn = list(scenes(count, "test"))
    found = ofa.ground_caption([draw(scene) for scene in drawn], [caption(scene) for scene in drawn])
    right = []
    for scene, one in zip(drawn, found, strict=True):
        for part in one.phrases:
            named = [thing for thing in scene.things if part.phrase.endswith(thing.name)]
            right += [overlaps(part.grounding.box, named)] if named else []
    yield Figure("ground_caption: Acc@0.5 of phrases", mean(right))


def first_queries(count: int, split: Split) -> list[tuple[Scene, str, bool]]:
    """First queries of dialogs, and whether more than one shape fits."""
    found = []
    for scene in scenes(count, split):
        random = Random(f"query {scene.seed}")
        target = random.choice(scene.things)
        query = open_dialog(scene, target, random).query
        fitting = [alike for words, alike in groups(scene, target) if query == f"i want the {words}."]
        found.append((scene, query, len(fitting[0] if fitting else scene.things) > 1))
    return found


def bits_of(pipeline: Pipeline, queries: list[tuple[Scene, str, bool]]) -> list[float]:
    """The ambiguity in bits of each query."""
    return ambiguities(pipeline, [draw(scene) for scene, *_ in queries], [[query] for _, query, _ in queries])


def ask_above(pipeline: Pipeline, count: int) -> float:
    """The ambiguity that tells training queries apart best."""
    queries = first_queries(count, "train")
    pairs = list(zip(bits_of(pipeline, queries), (ambiguous for *_, ambiguous in queries), strict=True))
    tried = sorted({bits for bits, _ in pairs})
    return max(tried, key=lambda least: sum((bits > least) == ambiguous for bits, ambiguous in pairs))


def ambiguity(ofa: OFA, count: int) -> Iterator[Figure]:
    """First queries that fit one shape, told from those that fit several; and games that this decides."""
    queries = first_queries(count, "test")
    bits, kinds = bits_of(ofa.pipeline, queries), [ambiguous for *_, ambiguous in queries]
    yield Figure("AUROC ambiguous/unambiguous first queries", auroc(bits, kinds) or 0, ">= 0.90")
    least = ask_above(ofa.pipeline, count)
    yield Figure("bits that tell training queries apart best", least)
    yield Figure("right by these bits", mean([(b > least) == kind for b, kind in zip(bits, kinds, strict=True)]))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write_dataset(directory, count, "test", first=FIRST)
        for name, decides in (("the agent decides", None), ("these bits decide", least), ("0.5 bits decide", 0.5)):
            settings = Settings(batch_size=BATCH_SIZE, ask_above=decides)
            rows, images = directory / "invig.test.jsonl", directory / "images"
            summary = evaluate(ofa, "invig_grounding_end2end", rows, images=images, settings=settings)
            yield Figure(f"games won, {name}", summary.headline.value)
            if summary.games is not None and (questions := summary.games.questions_per_won) is not None:
                yield Figure(f"questions per won game, {name}", questions.value, "fewer, at equal wins")


def pointing(ofa: OFA, count: int) -> Iterator[Figure]:
    """The place that an answer attends to most, within the shape that it is about."""
    asked = []
    for scene in scenes(count, "test"):
        described = phrase(scene, Random(f"pointing {scene.seed}"))
        asked += [] if described is None else [(draw(scene), described[2], described[0].box)]
    for name, gradients in (("", False), (", gradients", True)):
        explained = ofa.explain([p for p, *_ in asked], [words for _, words, _ in asked], gradients=gradients)
        hits = []
        for one, (_, _, (x0, y0, x1, y1)) in zip(explained, asked, strict=True):
            x, y = one.peak()
            hits.append(x0 <= x <= x1 and y0 <= y <= y1)
        yield Figure(f"explain: pointing accuracy{name}", mean(hits), "" if gradients else ">= 0.90")


#: Benchmarks with their rows and the scores that are told.
BENCHMARKS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("grefcoco", "grefcoco", ("Pr@(F1=1)", "presence", "presence AUROC", "presence ECE", "confidence ECE",
                              "no box, absent", "no box, present")),
    ("detection", "detection", ("AP", "AP50", "F1@0.5")),
    ("vqa", "questions", ("soft_label",)),
    ("vqa", "counting", ("soft_label",)),
)  # fmt: skip


def benchmarks(ofa: OFA, count: int) -> Iterator[Figure]:
    """Benchmarks on the files of ``ofa-core shapes``."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write_dataset(directory, count, "test", first=FIRST)
        for task, file, names in BENCHMARKS:
            rows = directory / f"{file}.test.jsonl"
            settings = Settings(batch_size=BATCH_SIZE)
            summary = evaluate(ofa, task, rows, images=directory / "images", settings=settings)
            for name in names:
                if name in summary.scores:
                    yield Figure(f"bench {task}, {file}: {name}", summary.scores[name].value)


#: The parts of the measurement, by name.
PARTS: dict[str, Callable[[OFA, int], Iterator[Figure]]] = {
    part.__name__: part for part in (presence, regions, captions, ambiguity, pointing, benchmarks)
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="the model")
    parser.add_argument("--count", type=int, default=300, help="pictures of each part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    args = parser.parse_args(arguments)
    ofa = ofa_core.load(args.model)
    print("| figure | target | measured |\n|---|---|---|", flush=True)
    for name in args.only:
        for figure in PARTS[name](ofa, args.count):
            print(f"| {figure.name} | {figure.target} | {figure.value:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
