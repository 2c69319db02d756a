"""Time and memory of reading 10,000 rows of the layouts in which data sets are published.

    python -m benchmarks.readers [--rows 10000]

writes a file of each and reads it in a process of its own; memory is the peak beyond that of the imports.
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
from typing import Any

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
_READ = """
import resource, sys, time
from pathlib import Path
from ofa_core.data.readers import read_records
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
count = sum(1 for _ in read_records(sys.argv[1], Path(sys.argv[2])))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{sys.argv[1]:<10} {count:,} records, {time.perf_counter() - start:.1f} s, {(peak - before) / 1024:.0f} MB more")
"""


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
        _measure("refcoco", _references(directory, rows))
    return 0


def _measure(format: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", _READ, format, str(path)], check=True)


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
