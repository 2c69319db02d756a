"""Time and memory of reading 10,000 rows of the layouts in which data sets are published, and of scoring results.

    python -m benchmarks.readers [--rows 10000]

writes a file of each and reads it in a process of its own; memory is the peak beyond that of the imports. Results are
scored with their intervals, half as many rows: five captions a picture, seven things a picture.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ofa_core.bench.results import Detected, Header, ResultsFile, Row, Target

_PAIRS = [["", "the man in white"], ["which one do you mean?", "the left one"], ["with a racket?", "yes"]]
_BOX = [50.0, 60.0, 250.0, 240.0]

#: A row of each format in JSON lines.
_ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "invig": lambda n: {"id": f"i{n}", "dialog": _PAIRS, "bbox": _BOX, "image_path": f"{n}.jpg", "raw_anns": "{}" * 99},
    "guesswhat": lambda n: {
        "id": n,
        "status": "success",
        "image": {"file_name": f"{n}.jpg", "width": 640, "height": 480},
        "objects": [
            {"id": at, "bbox": [50, 60, 200, 180], "category": "person", "segment": [[0.5] * 60]} for at in range(9)
        ],
        "object_id": 3,
        "qas": [{"question": "is it a person?", "answer": "Yes"}] * 5,
    },
    "caption": lambda n: {"image": f"{n}.jpg", "text": "a man in white"},
    "vqa": lambda n: {"image": f"{n}.jpg", "question": "what is it?", "answer": ["a man"] * 10},
    "snli_ve": lambda n: {"Flickr30K_ID": f"{n}", "gold_label": "neutral", "sentence1": "a man", "sentence2": "a king"},
}
#: A row of each format in parquet.
_TABLES: dict[str, Callable[[int], dict[str, Any]]] = {
    "invig": lambda n: {
        "ref_list": [{"id": f"{n}/{at}", "bbox": _BOX, "category": "man", "dialog": _PAIRS} for at in range(3)],
        "image_info": {"file_name": f"{n}.jpg", "width": 640, "height": 480, "id": str(n)},
        "image": {"bytes": b"x" * 20_000, "path": f"{n}.jpg"},
    },
    "guesswhat": lambda n: {
        "dialog": [["is it a person?", "yes"]] * 5,
        "bbox": _BOX,
        "image_path": f"{n}.jpg",
        "anns_id": str(n),
    },
    "refcoco": lambda n: {
        "bbox": _BOX,
        "captions": ["the man in white"] * 3,
        "sent_ids": [3 * n, 3 * n + 1, 3 * n + 2],
        "ref_id": n,
        "image_path": f"{n}.jpg",
        "split": "val",
        "raw_anns": "{}" * 99,
    },
    "ref_l4": lambda n: {
        "id": f"{n:06}",
        "caption": "the tall man in a white shirt who holds a racket",
        "bbox": [50.0, 60.0, 200.0, 180.0],
        "ori_category_id": "refcoco_1",
        "width": 640,
        "height": 480,
        "file_name": f"{n}.jpg",
    },
}
#: The most memory of the process itself: what the system counts for a child begins with its parent's.
_PEAK = """
def peak_memory():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
"""
_READ = (
    _PEAK
    + """
import sys, time
from pathlib import Path
from ofa_core.data.readers import read_records
before, start = peak_memory(), time.perf_counter()
count = sum(1 for _ in read_records(sys.argv[1], Path(sys.argv[2])))
told = f"{count:,} records, {time.perf_counter() - start:.1f} s, {(peak_memory() - before) / 1e6:.0f} MB more"
print(f"{sys.argv[1]:<18} {Path(sys.argv[2]).name:<24} {told}")
"""
)
_SCORE = (
    _PEAK
    + """
import sys, time
from pathlib import Path
from ofa_core.bench.recount import Recount
from ofa_core.bench.summary import summarize
before, start = peak_memory(), time.perf_counter()
found = summarize(*Recount().read(Path(sys.argv[1])))
told = f"{found.samples:,} samples, {time.perf_counter() - start:.1f} s, {(peak_memory() - before) / 1e6:.0f} MB more"
print(f"{found.task:<18} {'scored':<24} {told}")
"""
)


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for format, make in _ROWS.items():
            path = directory / f"{format}.jsonl"
            path.write_text("".join(json.dumps(make(number)) + "\n" for number in range(rows)))
            _measure(format, path)
        for format, make in _TABLES.items():
            _measure(format, _table(directory / f"{format}.parquet", [make(number) for number in range(rows)]))
        for format, path in _whole_files(directory, rows).items():
            _measure(format, path)
        for task, make_result in _RESULTS.items():
            _measure_scores(_results(directory / f"{task}.results.jsonl", task, make_result, rows // 2))
    return 0


def _measure(format: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", _READ, format, str(path)], check=True)


def _table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1000)
    return path


def _whole_files(directory: Path, rows: int) -> dict[str, Path]:
    """Files that are read as a whole, each with what lies beside it, by their format."""
    pictures = [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(rows)]
    captions = [{"id": n, "image_id": n // 5, "caption": "a man in white"} for n in range(5 * rows)]
    asked = [{"question_id": n, "image_id": n, "question": "what is it?"} for n in range(rows)]
    people = [{"answer": "a man", "answer_id": at, "answer_confidence": "yes"} for at in range(10)]
    said = [{**one, "answers": people, "answer_type": "other", "question_type": "what is"} for one in asked]
    contents: dict[str, Any] = {
        "captions_val2014.json": {"images": pictures, "annotations": captions},
        "v2_annotations.json": {"annotations": said},
        "v2_questions.json": {"questions": asked, "data_subtype": "val2014"},
    }
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content))
    pickled = _references(directory, rows)
    several = pickle.loads(pickled.read_bytes())
    for number, reference in enumerate(several):
        reference["ann_id"] = [[-1], [number], [number, (number + 1) % rows]][number % 3]
    (directory / "grefs(unc).json").write_text(json.dumps(several))
    return {
        "refcoco": pickled,
        "grefcoco": directory / "grefs(unc).json",
        "caption": directory / "captions_val2014.json",
        "vqa": directory / "v2_questions.json",
        "pretrain_detection": directory / "instances.json",
    }


_WORDS = ("a", "man", "in", "white", "with", "racket", "stands", "on", "the", "red", "court", "near", "two", "players")


def _caption_result(random: Random) -> dict[str, Any]:
    texts = [" ".join(random.choices(_WORDS, k=random.randint(8, 14))) for _ in range(6)]
    return {"references": tuple(texts[1:]), "output": texts[0]}


def _detection_result(random: Random) -> dict[str, Any]:
    corners = [(random.uniform(0, 400), random.uniform(0, 300)) for _ in range(7)]
    due = [((x, y, x + 90, y + 90), f"class {random.randrange(80)}") for x, y in corners]
    moved = [((x + random.uniform(0, 40), y, x + 90, y + 90), name) for (x, y, *_), name in due]
    return {
        "targets": tuple(Target(box=box, label=name) for box, name in due),
        "detected": tuple(Detected(box=box, label=name, score=random.random()) for box, name in moved),
        "output": "",
    }


_RESULTS: dict[str, Callable[[Random], dict[str, Any]]] = {"caption": _caption_result, "detection": _detection_result}


def _results(path: Path, task: str, make: Callable[[Random], dict[str, Any]], count: int) -> Path:
    """A results file of drawn answers."""
    random = Random(0)
    header = Header(task=task, comment="", model="", model_sha256="", data="", started="")
    shared: dict[str, Any] = {"image": "1.jpg", "size": (640, 480), "source": "", "target": ""}
    with ResultsFile(path, header) as file:
        file.write([Row(index=number, id=str(number), **shared, **make(random)) for number in range(count)])
    return path


def _measure_scores(path: Path) -> None:
    subprocess.run([sys.executable, "-c", _SCORE, str(path)], check=True)


def _references(directory: Path, rows: int) -> Path:
    """References as ``refs(unc).p`` has them, with ``instances.json`` beside them."""
    pictures = [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(rows)]
    thing = {"bbox": [50, 60, 200, 180], "category_id": 1, "segmentation": [[0.5] * 60]}
    boxes = [{"id": n, "image_id": n, **thing} for n in range(rows)]
    content = {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
    (directory / "instances.json").write_text(json.dumps(content))
    said = {"tokens": ["man", "in", "white"], "raw": "Man in white", "sent": "man in white", "sent_id": 1}
    made = [
        {"ref_id": n, "ann_id": n, "image_id": n, "split": "val", "sentences": [{**said, "sent_id": n}]}
        for n in range(rows)
    ]
    path = directory / "refs(unc).p"
    path.write_bytes(pickle.dumps(made, 0))
    return path


if __name__ == "__main__":
    sys.exit(main())
