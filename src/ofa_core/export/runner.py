"""Grounding on onnxruntime alone: python runner.py PICTURE "the phrase", beside the files that were exported.

It needs numpy, Pillow and onnxruntime, and nothing of the package that wrote it. The answer is one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BOS, PAD, EOS, UNK = range(4)
#: Words, in a text whose characters were replaced by ASCII ones of their classes.
WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s", re.ASCII)
BICUBIC = Image.Resampling.BICUBIC


class Tokenizer:
    """Byte-level BPE: text to the model's ids, by the three files of the vocabulary."""

    def __init__(self, folder: Path) -> None:
        lines = [line.rstrip("\r").rpartition(" ")[0] for line in _lines(folder / "dict.txt")]
        ids = {symbol: UNK + 1 + index for index, symbol in enumerate(lines)}
        own = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        self.ids = {symbol: ids.get(str(number), UNK) for symbol, number in own.items()}
        merges = [line for line in _lines(folder / "vocab.bpe") if not line.startswith("#version:")]
        self.ranks = {tuple(line.rstrip("\r").split(" ")): rank for rank, line in enumerate(merges)}
        visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        hidden = [byte for byte in range(256) if byte not in visible]
        self.bytes = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        words = [text[match.start() : match.end()] for match in WORD.finditer("".join(map(_class, text)))]
        return [self.ids[symbol] for word in words for symbol in self.merged(word)]

    def merged(self, word: str) -> list[str]:
        """Symbols of a word, with the most urgent pair joined until none is left."""
        symbols = [self.bytes[byte] for byte in word.encode("utf-8")]
        while True:
            pairs = enumerate(itertools.pairwise(symbols))
            ranked = [(self.ranks[pair], at) for at, pair in pairs if pair in self.ranks]
            if not ranked:
                return symbols
            at = min(ranked)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


class Searcher:
    """The two graphs of a folder, and a beam search with them."""

    def __init__(self, folder: Path, search: dict[str, Any], threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graphs = [folder / name for name in ("encoder.onnx", "decoder.onnx")]
        if missing := [graph.name for graph in graphs if not graph.is_file()]:
            raise ValueError(f"{folder} has no {' and no '.join(missing)}")
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"]) for graph in graphs
        )
        self.options = search

    def search(self, source: list[int], pixels: np.ndarray[Any, Any]) -> list[tuple[list[int], list[float]]]:
        """Beam search: tokens with ``</s>`` and their log-probabilities of each hypothesis, best first."""
        asked, beams = self.options, self.options["num_beams"]
        _, *fixed = self.encoder.run(None, {"tokens": np.array([source]), "images": pixels})
        names = [put.name for put in self.decoder.get_inputs()]
        known = dict(zip(names[1:], fixed, strict=False))
        empty = [put.shape for put in self.decoder.get_inputs()[1 + len(fixed) :]]
        past = [np.zeros((1, 1, shape[2], 0, shape[4]), np.float32) for shape in empty]
        prefixes, totals = [[BOS]], [[np.float32(0)]]
        ended: list[tuple[list[int], list[Any]]] = []
        length = int(asked["max_new_tokens_per_source_token"] * len(source) + asked["max_new_tokens"])
        length = min(length, asked["max_target_positions"] - 1)
        for step in range(length + 1):
            new = np.array([[prefix[-1:] for prefix in prefixes]])
            feed = {"tokens": new, **known, **dict(zip(names[1 + len(fixed) :], past, strict=True))}
            logits, *past = self.decoder.run(None, feed)
            scores = self.box_or_end(logits[0, :, -1], prefixes, step, length)
            log_probs = log_softmax(scores / np.float32(asked["temperature"]))
            log_probs = self.ruled(log_probs, prefixes, step, length)
            sums = (log_probs + np.array([each[-1] for each in totals])[:, None]).ravel()
            count = min(2 * beams, len(sums))
            best = np.argpartition(-sums, count - 1)[:count]
            best = best[np.lexsort((best, -sums[best]))]
            found = [(sums[i], *divmod(int(i), log_probs.shape[1])) for i in best]
            ends = [token == EOS and score > -np.inf for score, _, token in found]
            for (score, origin, token), end in list(zip(found, ends, strict=True))[:beams]:
                if end and len(ended) < beams:
                    ended.append(([*prefixes[origin][1:], token], [*totals[origin], score]))
            if len(ended) == beams or step == length:
                break
            kept = [one for one, end in zip(found, ends, strict=True) if not end][:beams]
            past = [part[:, [origin for _, origin, _ in kept]] for part in past]
            totals = [[*totals[origin], score] for score, origin, _ in kept]
            prefixes = [[*prefixes[origin], token] for _, origin, token in kept]
        power = asked["length_penalty"] if asked["normalize_scores"] else 0.0
        divided = [float(sums[-1]) / len(tokens) ** power for tokens, sums in ended]
        order = sorted(range(len(ended)), key=lambda i: -divided[i])
        return [(ended[i][0], np.diff(ended[i][1]).tolist()) for i in order]

    def box_or_end(self, logits: Any, prefixes: list[list[int]], step: int, length: int) -> Any:
        """Logits [K, V] of a model that names any number of boxes: a box or none, whichever is likelier as a whole."""
        rule = self.options.get("boxes")
        if rule is None or step == length:
            return logits
        first, last = rule["bin_ids"]
        for row, prefix in zip(logits, prefixes, strict=True):
            if not all(first <= token < last for token in prefix[1:]):
                continue
            goes_on = True
            if step % 4 == 0:
                mass = np.exp(log_softmax(row[None]))[0, first:last].sum()
                least = rule["least_further"] if step else rule["least_first"]
                goes_on = bool(mass >= least) and step + 4 <= length
            if goes_on:
                row[:first] = row[last:] = -np.inf
            else:
                row[first:last] = -np.inf
        return logits

    def ruled(self, scores: Any, prefixes: list[list[int]], step: int, length: int) -> Any:
        """Log-probabilities [K, V] with what may not follow at -inf."""
        asked = self.options
        if step < asked["min_new_tokens"]:
            scores[:, EOS] = -np.inf
        scores[np.isnan(scores)] = -np.inf
        scores[:, PAD] = -np.inf
        scores[:, UNK] -= np.float32(asked["unk_penalty"])
        if step >= length:
            scores[:, np.arange(scores.shape[1]) != EOS] = -np.inf
        if size := asked["no_repeat_ngram_size"]:
            for row, prefix in zip(scores, prefixes, strict=True):
                runs = [prefix[i : i + size] for i in range(len(prefix) - size + 1)]
                row[[run[-1] for run in runs if run[:-1] == prefix[len(prefix) - size + 1 :]]] = -np.inf
        return scores


class Runner:
    """Grounding with what stands in a folder."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "ground" not in config:
            raise ValueError(f"{folder} was not exported: its config.json is of another kind")
        if config["ground"] is None:
            raise ValueError(f"{folder} cannot ground: {config['why_not']}")
        self.task, self.limit = config["ground"], config["max_source_positions"]
        self.tokenizer = Tokenizer(folder)
        self.searcher = Searcher(folder, config["search"], threads)

    def ground(self, path: str | Path, phrase: str) -> dict[str, Any]:
        """The box (x0, y0, x1, y1) of a phrase in pixels of the picture, or None; with score, bins and tokens."""
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError(f"{path} is grey of more than 8 bits ({file.mode}); it should be a picture of 8 bits")
            image = ImageOps.exif_transpose(file).convert("RGB")
        tokens, scores = self.searcher.search(self.source(phrase), self.pixels(image))[0]
        first, last = self.task["bin_ids"]
        bins = [token - first for token in tokens[:-1] if first <= token < last]
        bins = bins if len(bins) == len(tokens) - 1 else []
        score = float(np.exp(np.mean(scores)))
        return {"box": self.box(bins[:4], image.size), "score": score, "bins": bins or None, "tokens": tokens}

    def source(self, phrase: str) -> list[int]:
        """Ids of the question for a phrase."""
        words = normalized(phrase).split(" ")
        if words == [""]:
            raise ValueError(f"the text to ground is empty: {phrase!r}")
        if len(words) > self.task["max_words"]:
            warnings.warn(f"a text of {len(words)} words was cut to {self.task['max_words']}", stacklevel=2)
        caption = " ".join(words[: self.task["max_words"]])
        ids = [BOS, *self.tokenizer.encode(self.task["prompt"].format(caption=caption)), EOS]
        if len(ids) > self.limit:
            raise ValueError(f"a source of {len(ids)} tokens is too long: this model holds {self.limit}")
        return ids

    def pixels(self, image: Image.Image) -> np.ndarray[Any, Any]:
        """Normalised pixels [1, 3, side, side]; first the width is resized, then the height, as in training."""
        side, mean, std = (self.task[name] for name in ("image_size", "mean", "std"))
        square = image.resize((side, image.height), BICUBIC).resize((side, side), BICUBIC)
        values = np.asarray(square, np.float32) / np.float32(255)
        values = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def box(self, bins: list[int], size: tuple[int, int]) -> list[float] | None:
        """The box in pixels of a picture of ``size`` (width, height); None where bins are none or enclose nothing."""
        if len(bins) != 4:
            return None
        values = np.array(bins, np.float32) / np.float32(self.task["num_bins"] - 1)
        values = values * np.float32(self.task["max_image_size"])
        ratios = np.array([self.task["image_size"] / side for side in size * 2], np.float32)
        box = [min(float(value), float(side)) for value, side in zip(values / ratios, size * 2, strict=True)]
        within_first_pixel = max(box[2:]) <= 1 < min(size)
        return box if box[0] < box[2] and box[1] < box[3] and not within_first_pixel else None


def normalized(text: str) -> str:
    """A phrase as the model has learned to read it."""
    text = text.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ").replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


def log_softmax(logits: Any) -> Any:
    """Log-probabilities [K, V] of logits."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _class(character: str) -> str:
    """An ASCII character of the same class: letter, number, white space or other."""
    if character < "\x80":
        return "!" if "\x1c" <= character <= "\x1f" else character
    kind = {"L": "a", "N": "0"}.get(unicodedata.category(character)[0])
    return kind or ("\t" if character.isspace() else "!")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1] if not lines[-1] else lines


def main() -> None:
    """Answer one question."""
    parser = argparse.ArgumentParser(description="Find the box of a phrase in a picture.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("phrase")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="what was exported (this one)")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    args = parser.parse_args()
    try:
        print(json.dumps(Runner(args.folder, args.threads).ground(args.picture, args.phrase)))
    except (OSError, ValueError, ImportError, Image.DecompressionBombError) as error:
        print(f"runner.py: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
