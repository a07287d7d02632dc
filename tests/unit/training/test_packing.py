"""The packed tree against each answer in a row of its own, run by the model's usual causal path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unified_reward.models.batching import Encoded, collate, encode
from unified_reward.models.batching import Segment as Piece
from unified_reward.models.vlm import Vlm, model_inputs
from unified_reward.training.logprobs import TokenScorer, forward_inputs, token_logprobs
from unified_reward.training.packing import Tree, answer_tree, first_fit, pack, visible

Trees = Callable[[int, int], list[Tree]]


def own_row(tree: Tree, answer: tuple[int, ...]) -> Encoded:
    """Prompt and one answer as a plain sample; text positions simply go on after the prompt."""
    start = int(tree.prompt.positions.max()) + 1
    follow = np.tile(np.arange(start, start + len(answer)), (3, 1))
    return replace(
        tree.prompt,
        input_ids=[*tree.prompt.input_ids, *answer],
        mm_types=[*tree.prompt.mm_types, *[0] * len(answer)],
        weights=[0.0] * len(tree.prompt) + [1.0] * len(answer),
        positions=np.concatenate([tree.prompt.positions, follow], axis=1),
    )


def answers_one_by_one(vlm: Vlm, trees: list[Tree]) -> list[Tensor]:
    out = []
    for tree in trees:
        for answer in tree.answers:
            batch = collate([own_row(tree, answer)], vlm.processor.pad_id)
            logprobs = vlm.model(**model_inputs(batch)).logits[0].log_softmax(-1)
            span = range(len(tree.prompt), len(tree.prompt) + len(answer))
            out.append(torch.stack([logprobs[t - 1, batch["input_ids"][0, t]] for t in span]))
    return out


def gradients(vlm: Vlm) -> list[Tensor]:
    found = [p.grad.clone() for p in vlm.model.parameters() if p.grad is not None]
    vlm.model.zero_grad(set_to_none=True)
    return found


def test_a_tree_row_is_its_answers_in_rows_of_their_own(vlm: Vlm, trees: Trees) -> None:
    sample = trees(7, 1)
    separate = answers_one_by_one(vlm, sample)
    weigh = torch.linspace(-1, 2, sum(map(len, separate)))
    (torch.cat(separate) * weigh).sum().backward()
    expected = gradients(vlm)

    batch = pack(sample, vlm.processor.pad_id)
    assert len(batch["input_ids"]) < len(sample), "short trees share a row"
    packed, _ = TokenScorer(vlm.model)(forward_inputs(batch, torch.device("cpu")))
    (packed * weigh).sum().backward()

    torch.testing.assert_close(packed, torch.cat(separate), atol=1e-5, rtol=1e-5)
    found = gradients(vlm)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_eager_attention_gives_the_same(vlm: Vlm, trees: Trees) -> None:
    batch = forward_inputs(pack(trees(4, 2), vlm.processor.pad_id), torch.device("cpu"))
    with torch.no_grad():
        sdpa, _ = TokenScorer(vlm.model)(batch)
        vlm.model.set_attn_implementation("eager")
        eager, _ = TokenScorer(vlm.model)(batch)
        vlm.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=1e-5)


def test_owners_weights_and_targets(vlm: Vlm) -> None:
    example = encode(vlm.processor, [Piece(" red ring"), Piece(" yes", weight=1.0), Piece(" no", weight=0.25)])
    pair = answer_tree(vlm.processor, [Piece(" blue")], ["yes", "no no"])
    batch = pack([Tree(example), pair], vlm.processor.pad_id)
    end = vlm.processor.eos_id
    yes, no = vlm.processor.text_ids(" yes")[0], vlm.processor.text_ids(" no")[0]
    assert batch["targets"].tolist() == [yes, no, yes, end, no, no, end]
    assert batch["owners"].tolist() == [0, 0, 2, 2, 3, 3, 3]
    assert batch["weights"].tolist() == [1.0, 0.25, 1, 1, 1, 1, 1]
    flat = batch["input_ids"].flatten()
    red, ring = vlm.processor.text_ids(" red ring")
    assert [flat[i].item() for i in batch["sources"][:2].tolist()] == [ring, yes]
    assert red not in batch["targets"].tolist()


def test_what_a_query_sees() -> None:
    document = torch.tensor([[0, 0, 0, 0, 1, -1]])
    segment = torch.tensor([[0, 1, 1, 2, 0, 0]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert visible(document, segment)[0, 0].int().tolist() == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_rows_hold_everything_once_and_nothing_too_long(lengths: list[int]) -> None:
    for room in (1.0, 1.5):
        rows = first_fit(lengths, room)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in row) <= room * max(lengths) for row in rows)
        # Two rows that are both at most half full would have been one.
        assert sum(2 * sum(lengths[i] for i in row) <= int(room * max(lengths)) for row in rows) <= 1


def test_pieces_of_the_head_give_the_same_values_and_gradients() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50)
    hidden = torch.randn(23, 8, requires_grad=True)
    targets = torch.randint(0, 50, (23,))
    whole, hits = token_logprobs(hidden, targets, head, 50)
    torch.testing.assert_close(whole, head(hidden).log_softmax(-1)[torch.arange(23), targets])
    assert hits.tolist() == (head(hidden).argmax(-1) == targets).tolist()
    expected = torch.autograd.grad(whole.square().sum(), [hidden, head.weight])
    pieces, hits_again = token_logprobs(hidden, targets, head, 50, limit_bytes=4 * 50 * 5)
    found = torch.autograd.grad(pieces.square().sum(), [hidden, head.weight])
    torch.testing.assert_close(pieces, whole)
    assert hits_again.tolist() == hits.tolist()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_head_sees_targets_only(vlm: Vlm, trees: Trees) -> None:
    batch = pack(trees(3, 3), vlm.processor.pad_id)
    seen: list[torch.Size] = []
    handle = vlm.model.lm_head.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape))
    TokenScorer(vlm.model)(forward_inputs(batch, torch.device("cpu")))
    handle.remove()
    assert [shape[0] for shape in seen] == [len(batch["targets"])]
    assert len(batch["targets"]) < batch["input_ids"].numel() / 3


def test_the_vision_tower_runs_once_a_pair(vlm: Vlm, trees: Trees) -> None:
    sample = [tree for tree in trees(6, 4) if tree.prompt.image_grids]
    batch = pack(sample, vlm.processor.pad_id)
    assert len(batch["image_grid_thw"]) == len(sample)


def test_an_empty_answer_is_refused(vlm: Vlm) -> None:
    prompt = encode(vlm.processor, [Piece(" red")])
    with pytest.raises(ValueError, match="no tokens"):
        Tree(prompt, ((1,), ()))
