"""One call for a batch of samples, whichever head it is, and its results as JSON and as a line for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..api import OFA
from ..errors import OFAError
from ..heads.explanation import Explanation
from ..heads.grounding import Grounding
from ..heads.image_generation import Imagined
from ..heads.results import Answer, Detections
from .heads import Head

#: A sample: the arguments that are its own, by name.
Sample = Mapping[str, Any]


def answer_batch(ofa: OFA, head: Head, samples: Sequence[Sample], shared: Mapping[str, Any]) -> list[Any]:
    """The results of a head for samples that are computed together, in their order.

    Args:
        ofa: the model.
        head: the head.
        samples: its columns, by name; of those that are optional all samples have the same.
        shared: arguments that are the same for all.

    Returns:
        A result for each sample.

    Raises:
        OFAError: one of them cannot be answered.
    """
    method: Callable[..., list[Any]] = getattr(ofa, head.method)
    names = [name for name in (*head.columns, *head.optional) if all(name in sample for sample in samples)]
    columns = {name: [sample[name] for sample in samples] for name in names}
    if head.name == "oracle" and "dialog" not in columns:
        columns["dialog"] = [[] for _ in samples]
    found: list[Any] = method(**columns, **shared, batch_size=max(len(samples), 1))
    return found


def answer_each(ofa: OFA, head: Head, samples: Sequence[Sample], shared: Mapping[str, Any]) -> list[Any | OFAError]:
    """As :func:`answer_batch`, with the error in the place of what cannot be answered; it spoils no other sample."""
    results: list[Any | OFAError] = [OFAError("the sample was not asked")] * len(samples)
    for places in _alike(head, samples):
        part = [samples[place] for place in places]
        for place, result in zip(places, _each(ofa, head, part, shared), strict=True):
            results[place] = result
    return results


def _each(ofa: OFA, head: Head, samples: Sequence[Sample], shared: Mapping[str, Any]) -> list[Any | OFAError]:
    try:
        return answer_batch(ofa, head, samples, shared)
    except OFAError as error:
        if len(samples) == 1:
            return [error]
    return [_each(ofa, head, [sample], shared)[0] for sample in samples]


def _alike(head: Head, samples: Sequence[Sample]) -> list[list[int]]:
    """The places of samples that have the same optional columns."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(tuple(name for name in head.optional if name in sample), []).append(place)
    return list(groups.values())


# Results


def result_fields(found: Any) -> dict[str, Any]:
    """A result as JSON; what the model said is the field ``answer``, since ``text`` is what was asked."""
    if isinstance(found, Explanation):
        x, y = found.peak()
        return {"answer": _said(found), "tokens": found.tokens, "decisive": found.decisive, "peak": (x, y)}
    if isinstance(found, Imagined):
        return {"score": found.score, "log_prob": found.log_prob, "seed": found.seed, "codes": found.codes.tolist()}
    fields: dict[str, Any] = found.to_dict()
    if "text" in fields:
        fields["answer"] = fields.pop("text")
    return fields


def told(found: Any) -> str:
    """A result for people, in one line, without its score."""
    if isinstance(found, Grounding):
        return _told_box(found)
    if isinstance(found, Detections):
        regions = [f"{region.label or 'region'} ({corners(region.box)}) {region.score:.2f}" for region in found]
        return "; ".join(regions) if regions else f"nothing (the model said {found.text!r})"
    if isinstance(found, Explanation):
        x, y = found.peak()
        return f"{_said(found)}, looked at most at x {x:.0f}, y {y:.0f}"
    return str(found.answer if isinstance(found, Answer) else found.text)


def scored(found: Any) -> str:
    """The confidence in a result, for people: probabilities of a closed set, else what there is; "" for nothing."""
    if isinstance(found, Answer) and found.probabilities:
        return ", ".join(f"{answer} {share:.3f}" for answer, share in found.top())
    if isinstance(found, Grounding) and found.confidence is not None:
        return f"confidence {found.confidence:.2f}"
    score = getattr(found, "score", None)
    return "" if score is None else f"score {score:.4f}"


def _told_box(found: Grounding) -> str:
    if found.box is None:
        return f"no box (the model said {found.text!r})"
    line = f"box ({corners(found.box)}) in pixels x0, y0, x1, y1"
    if len(found.regions) > 1:
        regions = "; ".join(f"({corners(region.box)}) {region.score:.2f}" for region in found.regions)
        line += f", one of {len(found.regions)}: {regions}"
    return line


def corners(box: Sequence[float]) -> str:
    """The corners of a box, to a tenth of a pixel."""
    return ", ".join(f"{value:.1f}" for value in box)


def _said(found: Explanation) -> str:
    return "".join(found.tokens).strip()
