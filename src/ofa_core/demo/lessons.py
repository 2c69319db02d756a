"""Lessons of the demo model from a scene: every task of the library, in the prompts that its heads use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from ..data.examples import Example, region_target, text_target
from ..errors import OFAError
from ..heads import caption as captions
from ..heads import grounding, oracle, presence, questioner, vqa
from ..heads.pipeline import Pipeline
from ..heads.regions import NO_REGION
from ..heads.tasks import TASKS
from ..text.dialog import Dialog
from ..text.vocabulary import EOS
from ..vision.boxes import Box
from . import dialogs, language
from .world import Scene, Split, Thing, draw, make_scene

#: The task that supervises every shape of a picture at once.
LISTING = TASKS["detection"]

#: Kinds of phrase that come first.
NAMED = ("name", "partial")
#: Kinds of closed question that come first.
CLAIMED = ("colour", "kind", "side", "size")

SourceTarget = tuple[list[int], list[int]]


def ground(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase and its box."""
    return _ground(pipeline, scene, random, tuple(language.PHRASES))


def named(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase of colour, kind or both, and its box: what to begin with."""
    return _ground(pipeline, scene, random, NAMED)


def _ground(pipeline: Pipeline, scene: Scene, random: Random, kinds: Sequence[str]) -> SourceTarget | None:
    found = language.phrase(scene, random, kinds)
    if found is None:
        return None
    thing, _, words = found
    (source,) = grounding.caption_sources(pipeline, [words])
    return source, region_target(pipeline, grounding.refcoco_codec(pipeline), thing.box, scene.size)


def vague(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase that fits several shapes, and the box of any of them: each is as likely."""
    found = language.vague_phrase(scene, random)
    if found is None:
        return None
    words, fitting = found
    (source,) = grounding.caption_sources(pipeline, [words])
    return source, _all_regions(pipeline, scene, [random.choice(fitting)])


def several(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase of several shapes, and all their boxes from left to right."""
    found = language.all_phrase(scene, random)
    if found is None:
        return None
    words, fitting = found
    (source,) = grounding.caption_sources(pipeline, [words])
    return source, _all_regions(pipeline, scene, [t for t in language.from_left_to_right(scene) if t in fitting])


def _all_regions(pipeline: Pipeline, scene: Scene, things: Sequence[Thing]) -> list[int]:
    codec = grounding.refcoco_codec(pipeline)
    bins = [one for thing in things for one in region_target(pipeline, codec, thing.box, scene.size)[:-1]]
    return [*bins, EOS]


def absent(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase that is about nothing in the picture, and the text that says so."""
    words = language.absent_phrase(scene, random)
    if words is None:
        return None
    (source,) = grounding.caption_sources(pipeline, [words])
    return source, text_target(pipeline, NO_REGION)


def check(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase, and whether what it describes is in the picture."""
    there = random.random() < 0.5
    found = language.phrase(scene, random) if there else None
    words = found[2] if found else language.absent_phrase(scene, random)
    if words is None:
        return None
    (source,) = presence.presence_sources(pipeline, [words])
    return source, text_target(pipeline, "yes" if found else "no")


def listing(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """All shapes from left to right, each as its box and its name, as OFA says them."""
    codec = grounding.refcoco_codec(pipeline)
    target: list[int] = []
    for thing in language.from_left_to_right(scene):
        target += region_target(pipeline, codec, thing.box, scene.size)[:-1]
        target += pipeline.tokenizer.encode(f" {thing.name}")
    return pipeline.encode(pipeline.prompt(LISTING, None)), [*target, EOS]


def region(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """A region and its description."""
    thing = random.choice(scene.things)
    (source,) = captions.region_sources(pipeline, [scene.size], [thing.box])
    return source, text_target(pipeline, language.region_caption(thing))


def caption(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """A caption of the picture."""
    (source,) = captions.caption_sources(pipeline, 1)
    return source, text_target(pipeline, language.caption(scene))


def answer(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """A question about the picture."""
    question, reply = language.picture_question(scene, random)
    (source,) = vqa.question_sources(pipeline, [question], [None])
    return source, text_target(pipeline, reply)


def counting(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """The number of shapes of a sort."""
    question, reply = language.count_question(scene, random)
    (source,) = vqa.question_sources(pipeline, [question], [None])
    return source, text_target(pipeline, reply)


def claim(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """A closed question about a region, with nothing before it and no other shape in it: what to begin with."""
    thing = random.choice(scene.things)
    return _closed_answer(pipeline, scene, thing, [], *language.question(scene, thing, random, CLAIMED))


def game(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """A question of a game of GuessWhat?!, behind those before it."""
    talk, at = _within_game(scene, random)
    if at is None:
        return None
    return _closed_answer(pipeline, scene, talk.target, talk.questions[:at], *talk.questions[at])


def _within_game(scene: Scene, random: Random) -> tuple[dialogs.Talk, int | None]:
    """A game of GuessWhat?! and the number of one of its questions, if it has any."""
    talk = dialogs.closed_dialog(scene, random.choice(scene.things), random)
    return talk, random.randrange(len(talk.questions)) if talk.questions else None


def _closed_answer(
    pipeline: Pipeline, scene: Scene, thing: Thing, before: Dialog, question: str, reply: str
) -> SourceTarget:
    (source,) = oracle.oracle_sources(pipeline, [scene.size], [thing.box], [before], [question])
    return source, text_target(pipeline, reply)


def closed_oracle(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """A closed question about a region, sometimes late in a dialog."""
    thing = random.choice(scene.things)
    turns: list[str] = []
    if random.random() < 0.4:
        for question, reply in dialogs.closed_dialog(scene, thing, random).questions:
            turns += [question, reply]
    for _ in range(random.choice((0, 0, 1, 2))):
        turns += language.question(scene, thing, random)
    if not turns or random.random() < 0.5:
        turns += language.question(scene, thing, random)
    *before, question, reply = turns
    return _closed_answer(pipeline, scene, thing, before, question, reply)


def closed_grounding(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """The shape a whole game is about."""
    talk = dialogs.closed_dialog(scene, random.choice(scene.things), random)
    if not talk.questions:
        return None
    (source,) = grounding.dialog_sources(pipeline, [talk.questions])
    return source, _region(pipeline, scene, talk.target.box, questioner.REGION)


def closed_question(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """The next question of a game."""
    talk, at = _within_game(scene, random)
    if at is None:
        return None
    (source,) = questioner.question_sources(pipeline, [talk.questions[:at]])
    return source, text_target(pipeline, talk.questions[at][0])


def _open(scene: Scene, random: Random) -> tuple[Thing, list[str]]:
    talk = dialogs.open_dialog(scene, random.choice(scene.things), random)
    return talk.target, [talk.query, *(turn for pair in talk.questions for turn in pair)]


def open_grounding(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """The shape an InViG dialog is about."""
    thing, turns = _open(scene, random)
    (source,) = grounding.dialog_sources(pipeline, [turns], "invig")
    return source, _region(pipeline, scene, thing.box, questioner.REGION)


def open_oracle(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """The person's reply to a question, or the first query where nothing was asked."""
    thing, turns = _open(scene, random)
    if len(turns) == 1:
        (source,) = oracle.query_sources(pipeline, [scene.size], [thing.box])
        return source, text_target(pipeline, turns[0])
    at = 2 * random.randrange(1, len(turns) // 2 + 1)
    asked = [turns[: at - 1]], [turns[at - 1]]
    (source,) = oracle.oracle_sources(pipeline, [scene.size], [thing.box], *asked, "invig")
    return source, text_target(pipeline, turns[at])


def open_question(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget | None:
    """The agent's next question."""
    _, turns = _open(scene, random)
    if len(turns) == 1:
        return None
    at = 2 * random.randrange(len(turns) // 2) + 1
    (source,) = questioner.question_sources(pipeline, [turns[:at]], "invig")
    return source, text_target(pipeline, turns[at])


def agent(pipeline: Pipeline, scene: Scene, random: Random) -> SourceTarget:
    """The turn of an agent that may guess: it asks on, or says the region once only one shape fits."""
    thing, turns = _open(scene, random)
    at = 2 * random.randrange(len(turns) // 2 + 1) + 1
    (source,) = questioner.agent_sources(pipeline, [turns[:at]])
    if at < len(turns):
        return source, text_target(pipeline, f"{questioner.NOT_YET} {turns[at]}")
    return source, _region(pipeline, scene, thing.box, f"{questioner.SURE} {questioner.REGION}")


def _region(pipeline: Pipeline, scene: Scene, box: Box, said: str) -> list[int]:
    return region_target(pipeline, grounding.invig_codec(pipeline), box, scene.size, said)


Lesson = Callable[[Pipeline, Scene, Random], SourceTarget | None]
#: Every lesson by name.
LESSONS: dict[str, Lesson] = {
    lesson.__name__: lesson
    for lesson in (
        ground, named, vague, several, absent, check, listing, region, caption, answer, counting, claim, game,
        closed_oracle, closed_grounding, closed_question, open_grounding, open_oracle, open_question, agent,
    )
}  # fmt: skip

#: The tasks that the lessons are parts of, by their names in :data:`ofa_core.heads.tasks.TASKS`, and the dialogs.
LEARNED = (
    "refcoco", "grefcoco", "bin_check", "detection", "region_caption", "caption", "image_classify", "vqa", "snli_ve",
    "guesswhat_grounding", "guesswhat_oracle", "guesswhat_question", "invig_grounding", "invig_oracle",
    "invig_question", "invig_agent",
)  # fmt: skip


class Lessons:
    """Scenes to learn from, without end: row ``index`` is always the same scene with the same questions.

    ``weights`` tell how often each lesson comes, ``loss_weights`` how much its tokens count (1 if not named): a yes or
    no is one token among the dozens of other lessons.

    Raises:
        OFAError: a lesson that does not exist.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        weights: Mapping[str, float],
        *,
        loss_weights: Mapping[str, float] | None = None,
        questions: int = 6,
        things: tuple[int, int] = (2, 6),
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        self.loss_weights = dict(loss_weights or {})
        if unknown := [name for name in (*weights, *self.loss_weights) if name not in LESSONS]:
            raise OFAError(f"there is no lesson {unknown[0]!r}; there are {', '.join(LESSONS)}")
        self.pipeline = pipeline
        self.weights = dict(weights)
        self.questions, self.split, self.seed = questions, split, seed
        self.things = (things[0], things[1])

    def examples(self, index: int) -> list[Example]:
        """The examples of one scene."""
        seed = self.seed * 1_000_003 + index
        scene = make_scene(seed, self.split, things=self.things)
        random = Random(f"lessons {self.split} {seed}")
        image = draw(scene)
        examples = []
        for name in random.choices(list(self.weights), list(self.weights.values()), k=self.questions):
            learned = LESSONS[name](self.pipeline, scene, random)
            if learned is not None:
                examples.append(Example(*learned, image, weight=self.loss_weights.get(name, 1.0)))
        return examples
