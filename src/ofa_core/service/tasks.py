"""Tasks that the service answers: what each asks of a model for a batch of requests, and what it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import api
from ..errors import OFAError
from ..heads import caption, grounding, vqa
from ..heads.pipeline import PreparedImage
from ..heads.tasks import TaskSpec
from . import answers, requests


@dataclass(frozen=True)
class ServedTask:
    """A task of the service, which is a method of :class:`~ofa_core.OFA` of the same name."""

    name: str
    summary: str
    request: type[requests.SearchRequest]
    answer: type[answers.CommonAnswer]
    #: Fields that come one for each sample of a batch; all others are the same for all samples of one.
    columns: tuple[str, ...] = ()
    #: The task whose pictures it takes, where they may have another side than the model's own.
    spec: TaskSpec | None = None

    def key(self, request: requests.SearchRequest) -> Hashable:
        """The part of a request that all of those share which are computed together."""
        columns = tuple(name for name in ("image", *self.columns) if getattr(request, name) is not None)
        return self.name, columns, repr(self.options(request))

    def options(self, request: requests.SearchRequest) -> dict[str, Any]:
        """Changes of a request that are the same for all samples of a batch."""
        return request.model_dump(exclude={"image", *self.columns}, exclude_none=True)


@dataclass(frozen=True)
class Sample:
    """A request whose picture was read."""

    task: ServedTask
    request: requests.SearchRequest
    picture: PreparedImage | None


TASKS: dict[str, ServedTask] = {
    task.name: task
    for task in (
        ServedTask(
            "ground",
            "The box of what a phrase describes",
            requests.GroundRequest,
            answers.GroundAnswer,
            ("text",),
            grounding.SPEC,
        ),
        ServedTask("detect", "Everything in a picture", requests.DetectRequest, answers.DetectAnswer),
        ServedTask("caption", "A caption", requests.CaptionRequest, answers.TextAnswer, (), caption.SPEC),
        ServedTask(
            "answer",
            "The answer to a question",
            requests.AnswerRequest,
            answers.AnswerAnswer,
            ("question", "box"),
            vqa.SPEC,
        ),
        ServedTask(
            "oracle",
            "The answer to a question about a region",
            requests.OracleRequest,
            answers.AnswerAnswer,
            ("box", "dialog", "question"),
        ),
        ServedTask(
            "chat",
            "A turn of a conversation, whose history the caller holds",
            requests.ChatRequest,
            answers.ChatAnswer,
            ("text", "history", "box", "opening"),
        ),
        ServedTask(
            "generate",
            "What follows a text that the model reads as it is",
            requests.GenerateRequest,
            answers.TextAnswer,
            ("text",),
        ),
    )
}


class Answerer:
    """A model that answers batches of requests; called in one thread at a time.

    Args:
        ofa: the model.
    """

    def __init__(self, ofa: api.OFA) -> None:
        self._ofa = ofa
        #: Warnings of this model that are about no request, by the name of the task.
        self._notices: dict[str, list[str]] = {}

    def warm_up(self) -> None:
        """Ask every task once, so that what is computed once is, and the model says what it never learned."""
        picture = requests.decoded_picture(requests.EXAMPLE_PICTURE)
        for task in TASKS.values():
            example = {"image": picture, "max_new_tokens": 4} | example_of(task)
            sample = Sample(task, task.request.model_validate(example), self._ofa.pipeline.prepare(picture))
            try:
                _, self._notices[task.name] = _noting_warnings(partial(self._asked, [sample]))
            except OFAError:  # a task that this model cannot do at all tells so whenever it is asked
                self._notices[task.name] = []

    def __call__(self, _: Hashable, samples: Sequence[Sample]) -> list[answers.CommonAnswer | Exception]:
        """The answer to each of samples that have one key, or the error in its place.

        Where a batch cannot be answered, or something is said about one of its samples, each is asked by itself.
        """
        try:
            found, said = _noting_warnings(partial(self._asked, samples))
        except Exception as error:
            if len(samples) == 1:
                return [error]
            return [one for sample in samples for one in self(None, [sample])]
        notices = self._notices.get(samples[0].task.name, [])
        said = [text for text in said if text not in notices]
        if said and len(samples) > 1:
            return [one for sample in samples for one in self(None, [sample])]
        for answer in found:
            answer.warnings = [*notices, *said]
        return list(found)

    def _asked(self, samples: Sequence[Sample]) -> list[answers.CommonAnswer]:
        task = samples[0].task
        ask: Callable[..., list[Any]] = _chat if task.name == "chat" else _method
        results = ask(self._ofa, task, samples)
        return [task.answer.model_validate(result, from_attributes=True) for result in results]


def example_of(task: ServedTask) -> dict[str, Any]:
    """A request as its documentation shows it, without the picture."""
    fields = task.request.model_fields.items()
    return {name: field.examples[0] for name, field in fields if field.examples and name != "image"}


def _noting_warnings(call: Callable[[], list[Any]]) -> tuple[list[Any], list[str]]:
    """Call a function; returns its results and the texts of its warnings, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    said = [warning for warning in caught if issubclass(warning.category, UserWarning)]  # none about code
    return found, list(dict.fromkeys(str(warning.message) for warning in said))


def _method(ofa: api.OFA, task: ServedTask, samples: Sequence[Sample]) -> list[Any]:
    """The results of the method of the task's name."""
    first = samples[0].request
    columns = {
        name: [getattr(sample.request, name) for sample in samples]
        for name in task.columns
        if getattr(first, name) is not None
    }
    if samples[0].picture is not None:
        columns["image"] = [sample.picture for sample in samples]
    results: list[Any] = getattr(ofa, task.name)(**columns, **task.options(first), batch_size=len(samples))
    return results


def _chat(ofa: api.OFA, task: ServedTask, samples: Sequence[Sample]) -> list[answers.ChatAnswer]:
    """A turn of each conversation; the image stem runs once for all of them."""
    looks = ofa.look([sample.picture for sample in samples])
    options = task.options(samples[0].request)
    style = options.pop("style")
    found = []
    for sample, look in zip(samples, looks, strict=True):
        request: Any = sample.request
        chat = ofa.chat(look, style=style, **options).resume(
            [(said, reply) for said, reply in request.history], box=request.box, opening=request.opening
        )
        turn = chat.say(request.text) if request.text or not chat.opening or request.opening else None
        found.append(
            answers.ChatAnswer(
                text=chat.opening if turn is None else turn.text,
                regions=[answers.Region.model_validate(region) for region in (turn.regions if turn else ())],
                done=turn is not None and turn.done,
                history=chat.context,
                opening=chat.opening,
            )
        )
    return found
