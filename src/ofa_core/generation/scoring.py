"""Probabilities of many given targets, at the cost of the places where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import OFAError
from ..inference.fast_model import answering
from ..model.encoder import ImageFeatures, Memory
from ..model.kv_cache import DecoderCache
from ..model.ofa import OFAModel
from ..text.vocabulary import BOS, EOS, PAD
from .checks import check_tokens
from .trie import Trie

DecoderPrompt = Literal["none", "src", "prev_output"]

#: Tree positions computed at once: the attention mask is square in them, and larger trees are slower for it.
MAX_TREE_POSITIONS = 256


@dataclass(frozen=True)
class _Tree:
    """The nodes at which candidates part, with the nodes above them, laid out for one decoder pass."""

    tokens: Tensor  # [T], a parent stands before its children
    depths: Tensor  # [T], 1 for the root's children
    attn_mask: Tensor  # [T, T], False where the column is the row itself or above it
    branch: Tensor  # [edges], the position an edge leaves from: 0 the prompt's end (root), i + 1 for position i
    token: Tensor  # [edges], the token it leads to
    edge: Tensor  # [pairs] and
    candidate: Tensor  # [pairs]: the edges on the way to each candidate


@torch.inference_mode()
def score_candidates(
    model: OFAModel,
    tokens: Tensor,
    images: Tensor | ImageFeatures | None,
    candidates: Sequence[Sequence[int]],
    decoder_prompt: DecoderPrompt = "none",
    *,
    image_mask: Tensor | None = None,
) -> Tensor:
    """Score candidate targets.

    At every position the softmax is taken over the tokens that some candidate has there, so a position without a choice
    adds nothing. Candidates are a tree: the decoder prompt and each shared prefix are computed once, and only where the
    tree branches, all such places in one pass.

    Args:
        model: the model.
        tokens: source tokens [B, N], padded with 1.
        images: normalised pixels [B, 3, h, w] or the stem's features; None for text alone.
        candidates: token ids without ``<s>`` and ``</s>``.
        decoder_prompt: what precedes a candidate and is not scored: ``none`` (``<s>``), ``src`` (the whole source) or
            ``prev_output`` (the source without its ``</s>``).
        image_mask: [B], False for samples without a picture.

    Returns:
        Log-probabilities [B, N] of N candidates for each of B samples.

    Raises:
        OFAError: candidates that are empty or occur twice, ids outside the vocabulary, or more positions than the model
            holds.
    """
    ids = tuple(tuple(int(token) for token in candidate) for candidate in candidates)
    trees = _trees(ids, model.config.vocab_size, tokens.device, MAX_TREE_POSITIONS)
    check_tokens(tokens, model.config.vocab_size, "source tokens")
    scores = torch.zeros(len(tokens), len(candidates), device=tokens.device)
    with answering(model):
        memory = model.encode(tokens, images, image_mask)
        for rows, prompt in _prompts(tokens, decoder_prompt):
            _check_length(prompt, trees, model.config.max_target_positions)
            scores[rows] = _score(model, memory.select(rows), prompt, trees, len(candidates))
    return scores


def _check_length(prompt: Tensor, trees: Sequence[_Tree], longest: int) -> None:
    """Raise OFAError where candidates behind ``prompt`` [b, L] are longer than the ``longest`` that a model holds."""
    length = prompt.shape[1] + max((int(tree.depths.max()) for tree in trees if len(tree.depths)), default=0)
    if length > longest:
        raise OFAError(f"a target of {length} tokens is too long: this model holds {longest}")


def decoder_prompt_ids(source: Sequence[int], kind: DecoderPrompt) -> list[int]:
    """The decoder prompt, ``<s>`` first, that goes with source ids: see :func:`score_candidates`."""
    if kind not in ("none", "src", "prev_output"):
        raise OFAError(f"decoder_prompt is 'none', 'src' or 'prev_output', not {kind!r}")
    if kind == "none":
        return [BOS]
    dropped = (PAD,) if kind == "src" else (PAD, EOS)
    return [token for token in source if token not in dropped]


def _prompts(tokens: Tensor, kind: DecoderPrompt) -> list[tuple[Tensor, Tensor]]:
    """Samples whose prompts are equally long: their indices [b] and prompts [b, L]."""
    by_length: dict[int, list[tuple[int, list[int]]]] = {}
    for row, source in enumerate(tokens.tolist()):
        prompt = decoder_prompt_ids(source, kind)
        by_length.setdefault(len(prompt), []).append((row, prompt))
    return [
        (torch.tensor([row for row, _ in group], device=tokens.device),
         torch.tensor([prompt for _, prompt in group], device=tokens.device))
        for group in by_length.values()
    ]  # fmt: skip


def _score(model: OFAModel, memory: Memory, prompt: Tensor, trees: list[_Tree], count: int) -> Tensor:
    """Scores [B, count] behind ``prompt`` [B, L]."""
    batch, length = prompt.shape
    scores = torch.zeros(batch, count, device=prompt.device)
    cache = DecoderCache()
    root = model.decode_states(memory, prompt, cache)[:, -1:]
    for tree in trees:
        states = root
        if len(tree.tokens):
            embedded = model.token_embedding(tree.tokens)[None].expand(batch, -1, -1)
            attn_mask = F.pad(tree.attn_mask, (length, 0))  # the prompt is always visible
            below = model.decoder(embedded, memory, cache.branch(), length - 1 + tree.depths, attn_mask)
            states = torch.cat([root, below], dim=1)
        logits = _edge_logits(model, states, tree)
        top = torch.full((batch, states.shape[1]), -torch.inf, device=prompt.device)
        top = top.scatter_reduce(1, tree.branch.expand(batch, -1), logits, "amax")
        total = torch.zeros_like(top).index_add_(1, tree.branch, (logits - top[:, tree.branch]).exp())
        log_probs = logits - (top + total.log())[:, tree.branch]  # [B, edges]
        scores.index_add_(1, tree.candidate, log_probs[:, tree.edge])
    return scores


def _edge_logits(model: OFAModel, states: Tensor, tree: _Tree) -> Tensor:
    """Logits [B, edges] of each edge's token at the position it leaves from, and of no other token."""
    weights = model.token_embedding.weight
    parts = [
        torch.einsum("bed,ed->be", states[:, branch], weights[token])
        for branch, token in zip(tree.branch.split(1024), tree.token.split(1024), strict=True)
    ]
    return torch.cat(parts, dim=1).float()


@lru_cache(maxsize=8)  # benchmarks score the same candidates again and again
def _trees(
    candidates: tuple[tuple[int, ...], ...], vocab_size: int, device: torch.device, max_positions: int
) -> list[_Tree]:
    """The branching part of the tree of ``candidates``, in as few trees as ``max_positions`` allows."""
    trie = Trie(candidates)
    trie.check_ids(vocab_size)
    groups: list[tuple[list[int], dict[int, None]]] = []  # branching nodes, and the nodes they need in order
    for node in range(len(trie.parents)):
        if len(trie.children[node]) < 2:
            continue
        path = trie.path(node)
        if not groups or len(groups[-1][1]) + len(path) > max_positions:
            groups.append(([], {}))
        groups[-1][0].append(node)
        groups[-1][1].update(dict.fromkeys(path))
    tree_of_edge: dict[int, tuple[int, int]] = {}  # child node -> its tree and edge
    for index, (branching, _) in enumerate(groups):
        edges = [child for node in branching for child in trie.children[node].values()]
        tree_of_edge |= {child: (index, edge) for edge, child in enumerate(edges)}
    pairs: list[list[tuple[int, int]]] = [[] for _ in groups]
    for candidate, leaf in enumerate(trie.leaves):
        for node in trie.path(leaf):
            if node in tree_of_edge:
                index, edge = tree_of_edge[node]
                pairs[index].append((edge, candidate))
    return [_lay_out(trie, *group, pair, device) for group, pair in zip(groups, pairs, strict=True)]


def _lay_out(
    trie: Trie, branching: list[int], needed: dict[int, None], pairs: list[tuple[int, int]], device: torch.device
) -> _Tree:
    nodes = list(needed)
    place = {node: index for index, node in enumerate(nodes)}
    attn_mask = torch.ones(len(nodes), len(nodes), dtype=torch.bool)
    depths = []
    for index, node in enumerate(nodes):
        path = trie.path(node)
        depths.append(len(path))
        attn_mask[index, [place[above] for above in path]] = False
    edges = [(place.get(node, -1) + 1, token) for node in branching for token in trie.children[node]]
    branch, token = torch.tensor(edges, device=device).T
    edge, candidate = torch.tensor(pairs, device=device).T
    return _Tree(
        tokens=torch.tensor([trie.tokens[node] for node in nodes], dtype=torch.long, device=device),
        depths=torch.tensor(depths, dtype=torch.long, device=device),
        attn_mask=attn_mask.to(device),
        branch=branch,
        token=token,
        edge=edge,
        candidate=candidate,
    )
