"""Write what README.md and the documentation say about tasks from the table that the code reads.

Run it after a change of ``ofa_core.heads.tasks``; a test holds that nothing differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from page_tables import filled, rewrite

from ofa_core.bench.summary import TASK_SCORES
from ofa_core.bench.tasks import TASKS as BENCHMARKS
from ofa_core.data.readers import COLUMNS
from ofa_core.data.records import Format
from ofa_core.generation import GenerationOptions
from ofa_core.heads.tasks import PRETRAINING, TASKS
from ofa_core.text.dialog import DIALOG_TASKS
from ofa_core.text.tio import BIN_CHECK, TIO_TASKS
from ofa_core.training.sources import LESSONS

ROOT = Path(__file__).parent.parent
#: Pages with tables of tasks.
PAGES = tuple(ROOT / page for page in ("docs/tasks.md", "docs/reference/ofa.md"))

_DIALOG = ' \\n#instruction: {}\\n#context: "..."'
#: The methods of ``OFA``, what the model reads for each (a task's name, an instruction, or words), and the result.
METHODS: Sequence[tuple[str, str, str]] = (
    ("ground(image, text)", "refcoco", "`Grounding`: box, score, confidence, present, bins, regions, alternatives"),
    ("ground_caption(image, text, phrases=None)", "refcoco", "`GroundedCaption`: a `Grounding` for each phrase"),
    ("explain(image, text, answer=None)", "refcoco", "`Explanation`: map, peak and draw of where it looked"),
    ("detect(image, categories=None)", "detection", "`Detections`: a `Detection` (box, label, score) for each thing"),
    ("ground_dialog(image, dialog, style=)", "guesswhat_grounding", "`Grounding`"),
    ("oracle(image, box, dialog, question, style=)", "guesswhat_oracle", "`OracleAnswer`: answer, probabilities"),
    ("query(image, box)", "invig_query", "`Text`: text, score, token_scores, alternatives"),
    ("ask(image, dialog, style=)", "guesswhat_question", "`Text`"),
    ("agent_turn(image, dialog)", "agent", "`AgentTurn`: a question, or a grounding"),
    ("chat(image, style=)", "agent", "`Chat`: say, ground, undo, reset, history, as_oracle, save, load"),
    ("caption(image)", "caption", "`Caption`: text, without_punctuation, score"),
    ("describe_region(image, box)", "region_caption", "`Text`"),
    ("answer(image, question, candidates=, objects=)", "vqa", "`Answer`: answer, score, probabilities"),
    ("is_present(image, text)", BIN_CHECK, "`Match`"),
    ("is_answer(image, question, answer)", "answer_matching", "`Match`: yes or no, `.yes` is its probability"),
    ("entails(image, text)", "snli_ve", "`Answer`: yes, no or maybe"),
    ("entails(image, text, caption)", "snli_ve_caption", "`Answer`"),
    ("matches(image, text)", "image_text_matching", "`Match`"),
    ("classify(image, labels)", "image_classify", "`Answer`, `.top(5)`"),
    ("read(image)", "ocr", "`Reading`: text, without_spaces, score"),
    ("summarize(text)", "gigaword", "`Text`"),
    ('judge("cola", text)', "cola", "`Answer`: yes or no"),
    ('judge("mnli", text, text2)', "mnli", "`Answer`: maybe, yes or no; so `rte`"),
    ('judge("mrpc", text, text2)', "mrpc", "`Answer`: yes or no"),
    ('judge("qnli", text, text2)', "qnli", "`Answer`: yes or no"),
    ('judge("qqp", text, text2)', "qqp", "`Answer`: yes or no"),
    ('judge("sst2", text)', "sst2", "`Answer`: positive or negative"),
    ("complete(text)", "text_infilling", "`Text`; `<mask>` stands for what is missing"),
    ("head_probabilities(head, text, image=)", "the text", "a probability for each class of a classification head"),
    ("generate(text, image=None)", "the text", "`Text`"),
    ("imagine(text, count=4, seed=)", "image_gen", "`Imagined` pictures with codes, score and seed, best first"),
    ("infill(image, box=None)", "image_infilling", "`Imagined` pictures: what is in the box is drawn anew"),
    ("encode_image(image)", "", "image codes, an array [rows, columns]"),
    ("decode_codes(codes)", "", "a PIL image"),
    ("look(image)", "", "`EncodedImage`: takes the picture's place in every method, its image stem is run once"),
)
#: Symbols behind a prompt.
BEHIND = {"region_caption": " <bin> ×4"}
#: Targets that are no text alone.
SAID = {
    "refcoco": "4 bins",
    "image_gen": "codes",
    "image_infilling": "codes",
    "detection": "4 bins and ` {}`, again and again",
    "text_infilling": "the whole text",
}


def method_table() -> str:
    """Every method, with what the model reads."""
    lines = ["| method | what the model reads | result |", "|---|---|---|"]
    for method, read, result in METHODS:
        lines.append(f"| `{method}` | {_read(read)} | {result} |")
    return "\n".join(lines) + "\n"


def _read(name: str) -> str:
    if name in TASKS:
        return _code(TASKS[name].prompts["gpt2"] + BEHIND.get(name, ""))
    if name in DIALOG_TASKS:
        return _code(_DIALOG.format(DIALOG_TASKS[name].instruction))
    return _code(name) if name == BIN_CHECK else name


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def task_table() -> str:
    """Prompts, targets and cuts of every task."""
    lines = ["| task | what the model reads | what it says | words of a source | of a target |", "|---" * 5 + "|"]
    for spec in TASKS.values():
        prompts = " · ".join(_code(prompt) for prompt in spec.prompts.values())
        answers = ", ".join(_code(f" {answer}") for answer in spec.answers)
        said = answers or SAID.get(spec.name, _code(spec.target.form))
        cut = f"{spec.target.size} {spec.target.unit}" if spec.target.size else ""
        read = f"{prompts}{BEHIND.get(spec.name, '')}"
        lines.append(f"| `{spec.name}` | {read} | {said} | {spec.source_words or ''} | {cut} |")
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """Settings of fine-tuned models and of others."""
    lines = [
        "| task | models | decoder prompt | fine-tuned: settings | other models | search | other models |",
        "|---|---|---|---|---|---|---|",
    ]
    for spec in TASKS.values():
        models = "pre-trained ones" if spec.trained_as == (PRETRAINING,) else ", ".join(map(_code, spec.trained_as))
        search = [_options(spec.search)]
        search += [f"huge: {_options(spec.huge_search)}"] if spec.huge_search else []
        search += [f"{kind}: {_options(changes)}" for kind, changes in spec.kind_search.items()]
        cells = (models, spec.decoder_prompt, _options(spec.fine_tuned), _options(spec.zero_shot))
        more = ("; ".join(filter(None, search)), _options(spec.zero_shot_search))
        lines.append(f"| `{spec.name}` | {' | '.join((*cells, *more))} |")
    return "\n".join(lines) + "\n"


def _options(changes: Mapping[str, object]) -> str:
    usual = GenerationOptions().model_dump()
    told = {name: value for name, value in changes.items() if name not in usual or usual[name] != value}
    shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in told.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def file_table() -> str:
    """Formats of tab-separated files with what is learned from them and benchmarked on them."""
    lines = ["| rows | columns of a .tsv | lessons | benchmarks |", "|---|---|---|---|"]
    for format in get_args(Format):
        columns = ", ".join(COLUMNS[format]) if format in COLUMNS else "JSON, parquet or Arrow"
        lessons = ", ".join(_code(name) for name, lesson in LESSONS.items() if lesson.format == format)
        benchmarks = ", ".join(
            f"{_code(name)} ({TASK_SCORES[name].headline})"
            for name, task in BENCHMARKS.items()
            if task.format == format
        )
        lines.append(f"| `{format}` | {columns} | {lessons} | {benchmarks} |")
    return "\n".join(lines) + "\n"


def tio_table() -> str:
    """Instructions and targets of TiO's development branch, a row for each style."""
    lines = ["| task | share | instruction | weight | first label | region | target |", "|---" * 7 + "|"]
    for name, task in TIO_TASKS.items():
        for number, style in enumerate(task.styles):
            told = (_code(name), f"{task.share:g}") if number == 0 else ("", "")
            shown = " ".join(part for part in (style.target, "region: 4 bins" if style.marks else "") if part)
            marks = (style.first or "", "yes" if style.region else "", _code(f" {shown}"))
            lines.append(f"| {' | '.join((*told, _code(style.instruction), f'{style.weight:g}', *marks))} |")
    return "\n".join(lines) + "\n"


TABLES = {
    "methods": method_table,
    "prompts": task_table,
    "settings": settings_table,
    "files": file_table,
    "tio": tio_table,
}


def with_tables(text: str) -> str:
    """A page with its tables as the code has them."""
    return filled("tasks", TABLES, text)


def main() -> None:
    """Write all pages."""
    for path in PAGES:
        rewrite(path, with_tables)


if __name__ == "__main__":
    main()
