"""The tasks of the original, in one table: what a model reads and says, how much of it, and how it is searched.

Heads, training and benchmarks read it, and README.md and docs/tasks.md print it; nothing of it stands twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..config import PRESETS, TaskChanges, TaskSettings
from ..errors import OFAError
from ..generation import GenerationOptions
from ..generation.options import SearchOptions
from ..generation.scoring import DecoderPrompt
from ..text import pre_caption, pre_question
from ..text.dialog import STYLES
from ..text.normalize import (
    as_it_is,
    glue_text,
    joined_words,
    ocr_characters,
    ocr_text,
    summary_text,
    without_punctuation,
)
from ..text.tokenizer import Kind

#: A rule for a text: its form in prompts or targets, cut to so many words (None: whole).
TextRule = Callable[[str, "int | None"], str]
#: Words of a source beyond which a task reads articles, whatever the model's own task reads.
LONG_SOURCE = 128
#: fairseq's name of the task that models are pre-trained with.
PRETRAINING = "unify_task"


@dataclass(frozen=True)
class Target:
    """The text that a model learns to say."""

    #: ``{}`` stands for the text.
    form: str = " {}"
    rule: TextRule = as_it_is
    #: The number of units that are kept of it; None: all of it.
    size: int | None = None
    unit: Literal["words", "characters", "tokens"] = "words"


@dataclass(frozen=True)
class TaskSpec:
    """One task: everything about it that is not code."""

    name: str
    #: The prompt by kind of vocabulary, with a leading space where it has one; a kind without one takes that of gpt2.
    prompts: Mapping[Kind, str]
    #: fairseq's names of the tasks whose models were fine-tuned for this one.
    trained_as: tuple[str, ...] = ()
    #: The rule for texts in the prompt, and how many words are kept of each.
    rule: TextRule = pre_caption
    source_words: int | None = 80
    target: Target = field(default_factory=Target)
    #: Targets of another form, by kind of vocabulary.
    kind_targets: Mapping[Kind, Target] = field(default_factory=dict)
    #: Answers of a closed set, in the order in which their probabilities are given.
    answers: tuple[str, ...] = ()
    #: Answers by the labels of dataset files.
    labels: Mapping[str, str] = field(default_factory=dict)
    decoder_prompt: DecoderPrompt = "none"
    #: Settings that the original's fine-tuning script gives a model.
    fine_tuned: TaskChanges = field(default_factory=TaskChanges)
    #: Settings of its script for models that were not fine-tuned for the task.
    zero_shot: TaskChanges = field(default_factory=TaskChanges)
    #: Settings of the search; what differs without fine-tuning, at the size huge, and with a kind of vocabulary.
    search: SearchOptions = field(default_factory=SearchOptions)
    zero_shot_search: SearchOptions = field(default_factory=SearchOptions)
    huge_search: SearchOptions = field(default_factory=SearchOptions)
    kind_search: Mapping[Kind, SearchOptions] = field(default_factory=dict)
    #: Settings of the search for models that have learned another task with the same prompt too, by its name.
    learned_search: Mapping[str, SearchOptions] = field(default_factory=dict)
    #: Weight of its loss in pre-training.
    weight: float = 1.0
    #: The method of :class:`~ofa_core.OFA` that asks for it; empty where none does.
    method: str = ""
    #: True if pre-training teaches its prompt, so that a pre-trained model answers it.
    pretrained: bool = False

    def prompt(self, kind: Kind) -> str:
        """The prompt of a kind of vocabulary."""
        return self.prompts.get(kind, self.prompts["gpt2"])

    def target_for(self, kind: Kind) -> Target:
        """The target's form with a kind of vocabulary."""
        return self.kind_targets.get(kind, self.target)

    def is_strange_to(self, task: TaskSettings) -> bool:
        """Tell whether a model with these settings is known not to have been fine-tuned for this task."""
        return task.name in KNOWN_NAMES and task.name not in self.trained_as

    def is_learned_by(self, task: TaskSettings) -> bool:
        """Tell whether a model with these settings has learned this task, or nothing is known of it."""
        if task.name == PRETRAINING:
            return self.pretrained or PRETRAINING in self.trained_as or self.name in task.learned
        return not self.is_strange_to(task) or self.name in task.learned

    def settings(self, task: TaskSettings) -> TaskSettings:
        """The settings under which a model of ``task`` does this task.

        A model that was fine-tuned for it, or of which nothing is known, has its own. Any other has those of the
        original's zero-shot script where there is one; the picture's side of that script counts for pre-trained
        models alone, since one that was fine-tuned has learned to see at its own.
        """
        if task.name in self.trained_as:
            return task
        if not self.is_strange_to(task):
            long = (self.source_words or 0) > LONG_SOURCE
            return task.model_copy(update={"max_source_tokens": self.source_words}) if long else task
        changes: TaskChanges = {"prompt_type": None, "add_object": False}
        if self.source_words is not None:
            changes["max_source_tokens"] = self.source_words
        if self.target.size is not None:
            changes["max_target_tokens"] = self.target.size
        changes |= self.zero_shot
        if task.name != PRETRAINING:
            changes |= {"image_size": task.image_size, "max_image_size": task.max_image_size}
        return task.model_copy(update=changes)

    def options(self, task: TaskSettings, kind: Kind, embed_dim: int) -> GenerationOptions:
        """The search for a model of ``task`` with a kind of vocabulary and a width."""
        found = GenerationOptions(**self.search)
        if embed_dim == PRESETS["huge"]["embed_dim"]:
            found = found.updated(**self.huge_search)
        found = found.updated(**self.kind_search.get(kind, SearchOptions()))
        for name, search in self.learned_search.items():
            if name in (task.name, *task.learned):
                found = found.updated(**search)
        if task.name in self.trained_as:
            return found.updated(**task.search)  # type: ignore[arg-type]  # which is checked there
        return found.updated(**self.zero_shot_search) if self.is_strange_to(task) else found

    def answer_of(self, label: str) -> str:
        """The answer that a dataset's label stands for; an answer stands for itself.

        Raises:
            OFAError: it is neither.
        """
        label = label.strip()
        if label in self.labels:
            return self.labels[label]
        if label in self.answers:
            return label
        raise OFAError(f"the label {label!r} is none of {', '.join(self.labels or self.answers)}")


def _beam(beams: int, tokens: int, ngram: int = 3, **more: object) -> SearchOptions:
    return SearchOptions(num_beams=beams, max_new_tokens=tokens, no_repeat_ngram_size=ngram, **more)  # type: ignore[typeddict-item]


_YES_NO = ("yes", "no")
_ENTAILMENT = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
_IS_TRUE = {"1": "yes", "0": "no", "entailment": "yes", "not_entailment": "no"}
_IS_IMPLIED = {"0": "maybe", "1": "yes", "2": "no", "neutral": "maybe", "entailment": "yes", "contradiction": "no"}
_FREE = SearchOptions(normalize_scores=False)
_CAPTION_PROMPT = " what does the image describe?"


def _snli_ve(name: str, prompt: str) -> TaskSpec:
    return TaskSpec(
        name,
        {"gpt2": prompt},
        method="entails",
        pretrained=True,
        trained_as=("snli_ve",),
        answers=("yes", "no", "maybe"),
        labels=_ENTAILMENT,
        decoder_prompt="prev_output",
        fine_tuned={"image_size": 480, "prompt_type": "prev_output", "max_source_tokens": 80},
        zero_shot={"image_size": 384, "prompt_type": "prev_output"},
    )


def _glue(name: str, prompt: str, labels: Mapping[str, str]) -> TaskSpec:
    """A task of GLUE; its answer is one token behind the whole source, without ``</s>``."""
    return TaskSpec(
        name,
        {"gpt2": prompt},
        method="judge",
        trained_as=(name,),
        rule=glue_text,
        source_words=512,
        answers=tuple(dict.fromkeys(labels.values())),
        labels=labels,
        decoder_prompt="src",
        fine_tuned={"prompt_type": "src", "max_source_tokens": 512},
    )


#: Every task by its name.
TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            "refcoco",
            {
                "gpt2": ' which region does the text " {caption} " describe?',
                "bert": '这段文字" {caption} "描述的是哪个区域？',
            },
            method="ground",
            pretrained=True,
            trained_as=("refcoco",),
            fine_tuned={"image_size": 512, "max_image_size": 512, "max_source_tokens": 80},
            zero_shot={"image_size": 480, "max_image_size": 512},
            search=_beam(5, 4, min_new_tokens=4),
            zero_shot_search={"constrain_after_softmax": True},
            learned_search={"grefcoco": {"min_new_tokens": 1, "max_new_tokens": 64}},
        ),
        TaskSpec(
            "caption",
            {"gpt2": _CAPTION_PROMPT, "bert": "图片描述了什么内容?"},
            method="caption",
            pretrained=True,
            trained_as=("caption",),
            target=Target(rule=without_punctuation, size=20),
            fine_tuned={"image_size": 480, "max_target_tokens": 20, "max_source_tokens": 80},
            search=_beam(5, 16),
            huge_search={"num_beams": 10, "temperature": 0.98, "length_penalty": 0.98},
            kind_search={"bert": {"num_beams": 8, "max_new_tokens": 128}},
        ),
        TaskSpec(
            "region_caption",
            {"gpt2": "  what does the region describe? region:"},
            method="describe_region",
            trained_as=(PRETRAINING,),
            target=Target(rule=pre_caption, size=30),
            search=_beam(5, 16),
        ),
        TaskSpec(
            "vqa",
            {"gpt2": " {question}"},
            method="answer",
            pretrained=True,
            trained_as=("vqa_gen",),
            rule=pre_question,
            target=Target(size=30, unit="tokens"),
            decoder_prompt="prev_output",
            fine_tuned={
                "image_size": 480,
                "prompt_type": "prev_output",
                "add_object": True,
                "max_source_tokens": 80,
                "max_target_tokens": 30,
            },
            zero_shot={"image_size": 480, "prompt_type": "none", "add_object": False},
            search=_FREE,
            zero_shot_search={"num_beams": 20, "constrain_after_softmax": True},
        ),
        _snli_ve("snli_ve", ' does the image describe " {hypothesis} "?'),
        # the script's add_caption, which its zero-shot form has not
        _snli_ve("snli_ve_caption", ' can image and text1 " {caption} " imply text2 " {hypothesis} "?'),
        TaskSpec(
            "image_classify",
            {"gpt2": _CAPTION_PROMPT, "bert": "图片描述了什么内容?"},
            method="classify",
            trained_as=("image_classify",),
            fine_tuned={"image_size": 480, "imagenet_normalization": True},
        ),
        TaskSpec(
            "image_gen",
            {"gpt2": " what is the complete image? caption: {text}"},
            method="imagine",
            trained_as=("image_gen",),
            rule=joined_words,
            source_words=64,
            fine_tuned={"max_source_tokens": 64},
            search={
                "do_sample": True,
                "num_return_sequences": 24,
                "top_k": 256,
                "min_new_tokens": 1024,
                "max_new_tokens": 1024,
                "image_codes": True,
            },
        ),
        TaskSpec(
            "gigaword",
            {
                "gpt2": ' what is the summary of article " {text} "?',
                "bert": "{text} 请用一个句子简单总结上文：",
            },
            method="summarize",
            trained_as=("gigaword",),
            rule=summary_text,
            source_words=512,
            target=Target(form="{}", rule=summary_text, size=64),
            fine_tuned={"max_source_tokens": 512, "max_target_tokens": 64},
            search=_beam(6, 32, length_penalty=0.7),
        ),
        TaskSpec(
            "ocr",
            {"gpt2": " what are the texts on the image?", "bert": "图片上的文字是什么?"},
            method="read",
            trained_as=("ocr",),
            target=Target(rule=ocr_text, size=30),
            kind_targets={"bert": Target(rule=ocr_characters, size=30, unit="characters")},
            fine_tuned={"image_size": 480, "max_target_tokens": 30},
            search=_beam(5, 64, 0),
        ),
        _glue("cola", ' is the text " {text} " grammatically correct?', _IS_TRUE),
        _glue("mnli", ' can text1 " {text} " imply text2 " {text2} "?', _IS_IMPLIED),
        _glue("rte", ' can text1 " {text} " imply text2 " {text2} "?', _IS_TRUE),
        _glue("mrpc", ' does text1 " {text} " and text2 " {text2} " have the same semantics?', _IS_TRUE),
        _glue("qnli", ' does " {text2} " contain the answer to question " {text} "?', _IS_TRUE),
        _glue("qqp", ' is question " {text} " and question " {text2} " equivalent?', _IS_TRUE),
        _glue(
            "sst2",
            ' is the sentiment of text " {text} " positive or negative?',
            {"1": "positive", "0": "negative"},
        ),
        TaskSpec(
            "pretrain_caption",
            {"gpt2": _CAPTION_PROMPT},
            trained_as=(PRETRAINING,),
            target=Target(rule=pre_caption, size=30),
        ),
        TaskSpec(
            "pretrain_qa",
            {"gpt2": " {question}"},
            trained_as=(PRETRAINING,),
            rule=pre_question,
            target=Target(),
        ),
        TaskSpec(
            "image_text_matching",
            {"gpt2": ' does the image describe " {caption} "?'},
            method="matches",
            trained_as=(PRETRAINING,),
            answers=_YES_NO,
        ),
        TaskSpec(
            "answer_matching",
            {"gpt2": ' what is the answer to question " {question} ". is " {answer} "?'},
            method="is_answer",
            trained_as=(PRETRAINING,),
            rule=pre_question,
            answers=_YES_NO,
        ),
        TaskSpec(
            "text_infilling",
            {"gpt2": ' what is the complete text of " {text} "?'},
            method="complete",
            trained_as=(PRETRAINING,),
            source_words=None,
            search={"num_beams": 5, "max_new_tokens": 256},
            weight=2.0,
        ),
        TaskSpec(
            "image_infilling",
            {"gpt2": " what is the image in the middle part?"},
            method="infill",
            trained_as=(PRETRAINING,),
            source_words=None,
            weight=2.0,
        ),
        TaskSpec(
            "detection",
            {"gpt2": " what are the objects in the image?"},
            method="detect",
            trained_as=(PRETRAINING,),
            source_words=None,
            search=_beam(1, 512, 0, constrain_after_softmax=True),
            weight=2.0,
        ),
    )
}

#: A task of GLUE.
GlueTask = Literal["cola", "mnli", "rte", "mrpc", "qnli", "qqp", "sst2"]
#: Those that :meth:`ofa_core.OFA.judge` knows.
GLUE: tuple[GlueTask, ...] = get_args(GlueTask)
#: Names of training tasks that say what a model was trained for.
KNOWN_NAMES = frozenset({PRETRAINING, *(name for spec in TASKS.values() for name in spec.trained_as)})

#: Methods that ask about dialogs, which none of the original's models has learned.
DIALOG_METHODS = ("ground_dialog", "oracle", "query", "ask", "agent_turn")
#: Every method that asks for a task.
METHODS = frozenset({*DIALOG_METHODS, *(spec.method for spec in TASKS.values() if spec.method)})


def answered_methods(task: TaskSettings) -> list[str]:
    """The methods of :class:`~ofa_core.OFA` that ask for what a model with these settings has learned."""
    found = [spec.method for spec in TASKS.values() if spec.method and spec.is_learned_by(task)]
    if task.name not in KNOWN_NAMES or any(name.startswith(STYLES) for name in task.learned):
        found += DIALOG_METHODS
    return list(dict.fromkeys(found))


#: Names of detected objects behind a question (VQA).
OBJECTS = " object: {objects}"
#: Tokens of a text to complete that are read, and how many of these are kept, the last ones.
INFILLING_TOKENS, INFILLING_KEPT = 512, 256
#: Leading target tokens of the cc12m captions of pre-training that are not learned.
CC12M_IGNORED = 2
#: Share of tokens of a summary that the decoder reads wrong in training.
SUMMARY_NOISE = 0.2


def spec_of(name: str, among: Sequence[str] = tuple(TASKS)) -> TaskSpec:
    """The task of a name.

    Raises:
        OFAError: there is none.
    """
    if name not in among:
        raise OFAError(f"there is no task {name!r}; there are {', '.join(among)}")
    return TASKS[name]


def fine_tuned_settings(name: str, task: TaskSettings) -> TaskSettings:
    """The settings that the original's fine-tuning script for a task gives to a model of ``task``."""
    spec = spec_of(name)
    return task.model_copy(update={"name": spec.trained_as[0], **spec.fine_tuned})
