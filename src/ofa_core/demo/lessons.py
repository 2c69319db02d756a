"""What the demo model learns from a scene: every task of the library, in the prompts that its heads use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from ..errors import OFAError
from ..heads import caption as captions
from ..heads import grounding, vqa
from ..heads.box_codec import Box, BoxCodec
from ..text import Tokenizer, pre_question
from ..text.dialog import DIALOG_TASKS, dialog_source
from ..text.vocabulary import EOS
from ..training.examples import Example
from . import dialogs, language
from .world import Scene, Split, Thing, draw, make_scene

#: What is asked for in the listing task, which supervises every shape of a picture at once.
LISTING = " what are the objects in the image?"


@dataclass(frozen=True)
class Pupil:
    """How the model that learns writes texts and boxes."""

    tokenizer: Tokenizer
    refcoco: BoxCodec
    invig: BoxCodec

    def text(self, words: str) -> list[int]:
        """A source, ``<s>`` to ``</s>``."""
        return self.tokenizer.encode(words, add_special_tokens=True)

    def target(self, words: str) -> list[int]:
        """A target with its leading space and ``</s>``."""
        return [*self.tokenizer.encode(f" {words}"), EOS]

    def bins(self, codec: BoxCodec, scene: Scene, box: Box) -> list[int]:
        """The ids of a box."""
        return self.tokenizer.vocabulary.bins_to_ids(codec.encode(box, scene.size))

    def dialog(self, task: str, scene: Scene, turns: list[str], region: Box | None = None) -> list[int]:
        """The source of a dialog task."""
        bins = None if region is None else self.invig.encode(region, scene.size)
        return dialog_source(self.tokenizer, DIALOG_TASKS[task], turns, bins)


SourceTarget = tuple[list[int], list[int]]


def ground(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget | None:
    """A phrase and its box."""
    found = language.phrase(scene, random)
    if found is None:
        return None
    thing, _, words = found
    source = pupil.text(grounding.PROMPTS["gpt2"].format(caption=words))
    return source, [*pupil.bins(pupil.refcoco, scene, thing.box), EOS]


def listing(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """All shapes from left to right, each with its box."""
    target: list[int] = []
    for thing in language.from_left_to_right(scene):
        target += [*pupil.tokenizer.encode(f" {thing.name}"), *pupil.bins(pupil.refcoco, scene, thing.box)]
    return pupil.text(LISTING), [*target, EOS]


def region(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """What a region shows."""
    thing = random.choice(scene.things)
    question = pupil.text(captions.REGION_PROMPTS["gpt2"])[:-1]
    return [*question, *pupil.bins(pupil.refcoco, scene, thing.box), EOS], pupil.target(language.region_caption(thing))


def caption(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """A caption of the picture."""
    return pupil.text(captions.PROMPTS["gpt2"]), pupil.target(language.caption(scene))


def answer(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """A question about the picture."""
    question, reply = language.picture_question(scene, random)
    asked = f"{pre_question(question.rstrip('?'))}?"
    return pupil.text(vqa.PROMPTS["gpt2"].format(question=asked)), pupil.target(reply)


def closed_oracle(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
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
    *turns, reply = turns
    return pupil.dialog("guesswhat_oracle", scene, turns, thing.box), pupil.target(reply)


def closed_grounding(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget | None:
    """The shape a whole game is about."""
    talk = dialogs.closed_dialog(scene, random.choice(scene.things), random)
    turns = [turn for pair in talk.questions for turn in pair]
    if not turns:
        return None
    target = [*pupil.target("region:")[:-1], *pupil.bins(pupil.invig, scene, talk.target.box), EOS]
    return pupil.dialog("guesswhat_grounding", scene, turns), target


def closed_question(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget | None:
    """The next question of a game."""
    talk = dialogs.closed_dialog(scene, random.choice(scene.things), random)
    if not talk.questions:
        return None
    at = random.randrange(len(talk.questions))
    turns = [turn for pair in talk.questions[:at] for turn in pair]
    return pupil.dialog("guesswhat_question", scene, turns), pupil.target(talk.questions[at][0])


def _open(scene: Scene, random: Random) -> tuple[Thing, list[str]]:
    talk = dialogs.open_dialog(scene, random.choice(scene.things), random)
    return talk.target, [talk.query, *(turn for pair in talk.questions for turn in pair)]


def open_grounding(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """The shape an InViG dialog is about."""
    thing, turns = _open(scene, random)
    target = [*pupil.target("region:")[:-1], *pupil.bins(pupil.invig, scene, thing.box), EOS]
    return pupil.dialog("invig_grounding", scene, turns), target


def open_oracle(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """The person's reply to a question, or the first query where nothing was asked."""
    thing, turns = _open(scene, random)
    if len(turns) == 1:
        return pupil.dialog("invig_query", scene, [], thing.box), pupil.target(turns[0])
    at = 2 * random.randrange(1, len(turns) // 2 + 1)
    return pupil.dialog("invig_oracle", scene, turns[:at], thing.box), pupil.target(turns[at])


def open_question(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget | None:
    """The agent's next question."""
    _, turns = _open(scene, random)
    if len(turns) == 1:
        return None
    at = 2 * random.randrange(len(turns) // 2) + 1
    return pupil.dialog("invig_question", scene, turns[:at]), pupil.target(turns[at])


def agent(pupil: Pupil, scene: Scene, random: Random) -> SourceTarget:
    """What an agent does that may guess: it asks on, or says the region once only one shape fits."""
    thing, turns = _open(scene, random)
    at = 2 * random.randrange(len(turns) // 2 + 1) + 1
    source = pupil.dialog("agent", scene, turns[:at])
    if at < len(turns):
        return source, pupil.target(f"not yet. {turns[at]}")
    return source, [*pupil.target("sure. region:")[:-1], *pupil.bins(pupil.invig, scene, thing.box), EOS]


Lesson = Callable[[Pupil, Scene, Random], SourceTarget | None]
#: Every lesson by name.
LESSONS: dict[str, Lesson] = {
    lesson.__name__: lesson
    for lesson in (
        ground, listing, region, caption, answer, closed_oracle, closed_grounding, closed_question,
        open_grounding, open_oracle, open_question, agent,
    )
}  # fmt: skip


class Lessons:
    """Scenes to learn from, without end: row ``index`` is always the same scene with the same questions.

    Raises:
        OFAError: a lesson that does not exist.
    """

    def __init__(
        self,
        pupil: Pupil,
        weights: Mapping[str, float],
        *,
        questions: int = 6,
        things: tuple[int, int] = (2, 6),
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        if unknown := [name for name in weights if name not in LESSONS]:
            raise OFAError(f"there is no lesson {unknown[0]!r}; there are {', '.join(LESSONS)}")
        self.pupil = pupil
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
            learned = LESSONS[name](self.pupil, scene, random)
            if learned is not None:
                examples.append(Example(*learned, image))
        return examples
