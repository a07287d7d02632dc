"""Reads a batch of prompts with the judge's model: writes each rationale greedily, then weighs the verdict strings.

One pass over each prompt, one token at a time for the rationale, one tree forward for all verdict strings, all over one
key-value buffer. Rows that are done leave the batch. A row's result does not depend on its neighbours beyond rounding:
padding and other rows are masked, positions are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from unified_reward.judge.pack import Rationale
from unified_reward.judge.tree import AnswerTree
from unified_reward.models.batching import IMAGE, VIDEO, Encoded, collate
from unified_reward.models.vlm import Vlm

VISION_BATCH = 64  # pictures or clips through the vision tower at once
ATTENTION = "unified_reward_grouped"


def _grouped_attention(_module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
                       scaling: float, **_: Any) -> tuple[Tensor, None]:  # fmt: skip
    """SDPA that reads grouped keys and values where they lie; transformers copies them for every head when masked."""
    grouped = query.shape[1] != key.shape[1]
    attended = nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=grouped)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _grouped_attention)


@dataclass(frozen=True)
class Answer:
    """What was read of one prompt. logprobs: nats of each verdict string. finished: it wrote the stop string itself."""

    rationale: str
    finished: bool
    logprobs: list[float]


class KeyValues:
    """Keys and values of all layers in buffers of fixed capacity: a step writes its slots and copies nothing.

    Stands where transformers expects a cache; attention layers call only `update`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used = capacity, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """key, value: [B, heads, Q, D] of the newest Q slots. Returns all slots up to and with these."""
        if layer == len(self.keys):
            rows, heads, _count, size = key.shape
            self.keys.append(key.new_empty(rows, heads, self.capacity, size))
            self.values.append(value.new_empty(rows, heads, self.capacity, size))
        end = self.used + key.shape[2]
        self.keys[layer][:, :, self.used : end] = key
        self.values[layer][:, :, self.used : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def rows(self, index: Tensor) -> KeyValues:
        """The same for some of the rows."""
        part = KeyValues(self.capacity)
        part.used = self.used
        part.keys = [key[index] for key in self.keys]
        part.values = [value[index] for value in self.values]
        return part

    def get_seq_length(self, _layer: int = 0) -> int:
        return self.used


@dataclass
class _Rows:
    """A batch while it is read. B rows, `cache.used` slots each.

    indices: where each row's result belongs. visible: bool [B, capacity], slots a row may look at. hidden: [B, H], state
    of the last token read. position: int64 [B], of the next token. written: tokens of each rationale; the last one is not read
    yet. tail: text of its end, in which the stop string is looked for.
    """

    indices: list[int]
    cache: KeyValues
    visible: Tensor
    hidden: Tensor
    position: Tensor
    written: list[list[int]]
    unread: list[list[int]]
    tail: list[str]
    done: list[bool]
    finished: list[bool]

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: list[int]) -> _Rows:
        at = torch.tensor(rows, dtype=torch.int64, device=self.hidden.device)
        return _Rows(
            [self.indices[r] for r in rows], self.cache.rows(at), self.visible[at], self.hidden[at], self.position[at],
            [self.written[r] for r in rows], [self.unread[r] for r in rows], [self.tail[r] for r in rows],
            [self.done[r] for r in rows], [self.finished[r] for r in rows],
        )  # fmt: skip


class Reader:
    """A judge's model, made to read prompts."""

    def __init__(self, vlm: Vlm) -> None:
        self.vlm = vlm
        self.family = vlm.processor.family
        self.model = vlm.model.model
        self.language: Any = self.model.language_model
        self.device = vlm.model.device
        self._texts: dict[int, str] = {}

    @torch.inference_mode()
    def features(self, encoded: Sequence[Encoded], known: dict[int, Tensor]) -> None:
        """Vision features of every medium in `encoded`, each once, into `known` by the identity of its patches.

        Each is [levels, tokens, H], as `families.Qwen25.features` says.
        """
        for kind in (IMAGE, VIDEO):
            new = {
                id(patches): (patches, grid)
                for sample in encoded
                for patches, grid in zip(*_media(sample, kind), strict=True)
                if id(patches) not in known
            }
            items = list(new.items())
            for start in range(0, len(items), VISION_BATCH):
                part = items[start : start + VISION_BATCH]
                pixels = torch.cat([torch.from_numpy(patches) for _, (patches, _) in part]).to(self.device)
                grids = [grid for _, (_, grid) in part]
                seen = self.family.features(self.model, pixels, grids, video=kind == VIDEO)
                known.update(zip((key for key, _ in part), seen, strict=True))

    @torch.inference_mode()
    def read(self, prompts: Sequence[Encoded], features: dict[int, Tensor], tree: AnswerTree,
             rationale: Rationale | None) -> list[Answer]:  # fmt: skip
        """The answer to each prompt. prompts: one batch, all answered by `tree`; features: of all their media."""
        stop = self.vlm.processor.text_ids(rationale.stop) if rationale else []
        room = (rationale.max_tokens + 1 if rationale else 0) + len(stop) + len(tree.tokens)
        rows = self._prompt(prompts, features, room)
        out: dict[int, Answer] = {}
        if rationale is None:
            self._weigh(rows, tree, [], out)
            return [out[i] for i in range(len(prompts))]
        for step in range(rationale.max_tokens):
            self._write(rows, rationale.stop)
            cut = step + 1 == rationale.max_tokens
            leaving = [row for row, done in enumerate(rows.done) if done or cut]
            if leaving and 2 * len(leaving) >= len(rows):
                going = [row for row in range(len(rows)) if not (rows.done[row] or cut)]
                self._weigh(rows.take(leaving) if going else rows, tree, stop, out)
                if not going:
                    break
                rows = rows.take(going)
            self._step(rows)
        return [out[i] for i in range(len(prompts))]

    def _prompt(self, prompts: Sequence[Encoded], features: dict[int, Tensor], room: int) -> _Rows:
        """Read the prompts, padded on the left."""
        batch = collate_text(prompts, self.vlm.processor.pad_id)
        ids, mask, kinds, positions = (batch[key].to(self.device) for key in TEXT_KEYS)
        embeds = self.language.embed_tokens(ids)
        deep = self._place(prompts, features, kinds, embeds)
        length = ids.shape[1]
        seen = mask.bool()
        causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=self.device)  # padding looks at itself: no row is empty
        cache = KeyValues(length + room)
        hidden = self._forward(embeds, positions, (causal & seen[:, None, :]) | own, cache, **deep)[:, -1]
        visible = torch.zeros(len(prompts), length + room, dtype=torch.bool, device=self.device)
        visible[:, :length] = seen
        return _Rows(
            list(range(len(prompts))), cache, visible, hidden, positions[0, :, -1] + 1,
            [[] for _ in prompts], [[] for _ in prompts], [""] * len(prompts), [False] * len(prompts),
            [False] * len(prompts),
        )  # fmt: skip

    def _place(self, prompts: Sequence[Encoded], features: dict[int, Tensor], kinds: Tensor,
               embeds: Tensor) -> dict[str, Any]:  # fmt: skip
        """Put what is seen into `embeds`, [B, L, H]; returns what the language model's forward adds further in."""
        visual = kinds[kinds > 0]
        deep: Tensor | None = None
        for kind in (IMAGE, VIDEO):
            found = [features[id(patches)] for sample in prompts for patches in _media(sample, kind)[0]]
            if not found:
                continue
            levels = torch.cat(found, dim=1).to(embeds.dtype)
            embeds[kinds == kind] = levels[0]
            if len(levels) > 1:
                deep = levels.new_zeros(len(levels) - 1, len(visual), levels.shape[-1]) if deep is None else deep
                deep[:, visual == kind] = levels[1:]
        return {} if deep is None else {"visual_pos_masks": kinds > 0, "deepstack_visual_embeds": list(deep)}

    def _write(self, rows: _Rows, stop: str) -> None:
        """Choose the next token of each rationale that is not done."""
        tokens = self.vlm.model.lm_head(rows.hidden).argmax(-1).tolist()
        for row, token in enumerate(tokens):
            if rows.done[row]:
                continue
            if token == self.vlm.processor.eos_id:
                rows.done[row] = True
                continue
            rows.written[row].append(token)
            rows.unread[row] = [token]
            rows.tail[row] = (rows.tail[row] + self._text(token))[-64 - len(stop) :]
            rows.done[row] = rows.finished[row] = stop in rows.tail[row]

    def _step(self, rows: _Rows) -> None:
        """Read the newest token of each row that is not done; the others read padding that nobody will look at."""
        pad, slot = self.vlm.processor.pad_id, rows.cache.used
        going = torch.tensor([not done for done in rows.done], device=self.device)
        tokens = [pad if done else unread[0] for done, unread in zip(rows.done, rows.unread, strict=True)]
        rows.visible[:, slot] = going
        embeds = self.language.embed_tokens(torch.tensor(tokens, device=self.device)[:, None])
        positions = rows.position.expand(3, -1)[..., None]
        rows.hidden = self._forward(embeds, positions, rows.visible[:, None, : slot + 1], rows.cache)[:, 0]
        rows.position = rows.position + going
        rows.unread = [unread if done else [] for done, unread in zip(rows.done, rows.unread, strict=True)]

    def _weigh(self, rows: _Rows, tree: AnswerTree, stop: list[int], out: dict[int, Answer]) -> None:
        """Read what each row has not read yet (and the stop, where missing), then the tree; note the result."""
        ends = zip(rows.unread, rows.finished, strict=True)
        tails = [unread if finished else unread + stop for unread, finished in ends]
        width, nodes = max(map(len, tails)), len(tree.tokens)
        states = rows.hidden[:, None]
        if width + nodes:
            pad = self.vlm.processor.pad_id
            padded = [[pad] * (width - len(tail)) + tail + tree.tokens for tail in tails]
            positions, mask = self._tail_and_tree([len(tail) for tail in tails], width, tree)
            before = rows.visible[:, None, : rows.cache.used].expand(-1, width + nodes, -1)
            embeds = self.language.embed_tokens(torch.tensor(padded, device=self.device))
            positions = (rows.position[:, None] + positions).expand(3, -1, -1)
            hidden = self._forward(embeds, positions, torch.cat([before, mask], dim=-1), rows.cache)
            states = torch.cat([hidden[:, width - 1 : width] if width else states, hidden[:, width:]], dim=1)
        logprobs = tree.read(self.vlm.model.lm_head(states)).tolist()
        for row, index in enumerate(rows.indices):
            out[index] = Answer(self.vlm.processor.decode(rows.written[row]), rows.finished[row], logprobs[row])

    def _tail_and_tree(self, lengths: list[int], width: int, tree: AnswerTree) -> tuple[Tensor, Tensor]:
        """Positions [B, W + M] after each row's last token, and who sees whom, bool [B, W + M, W + M].

        Tails stand right-aligned in W slots; each of the tree's M nodes sees its row's tail and its own ancestors.
        """
        nodes = len(tree.tokens)
        length = torch.tensor(lengths, device=self.device)[:, None]
        place = torch.arange(width, device=self.device) - (width - length)  # negative = padding
        depth = torch.tensor(tree.depths, dtype=torch.int64, device=self.device)
        positions = torch.cat([place.clamp(min=0), length + depth], dim=1)
        sees = torch.zeros(len(lengths), width + nodes, width + nodes, dtype=torch.bool, device=self.device)
        sees[:, :, :width] = (place >= 0)[:, None, :]
        sees[:, :width, :width] &= torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        sees[:, width:, width:] = tree.visible().to(self.device)
        return positions, sees

    def _forward(self, embeds: Tensor, positions: Tensor, mask: Tensor, cache: KeyValues, **deep: Any) -> Tensor:
        """embeds: [B, Q, H]; positions: [3, B, Q]; mask: bool [B, Q, slots], true = looks at. Returns [B, Q, H]."""
        config = self.language.config
        usual, config._attn_implementation = config._attn_implementation, ATTENTION
        try:
            hidden: Tensor = self.language(
                inputs_embeds=embeds, position_ids=self.family.positions(positions), attention_mask=mask[:, None],
                past_key_values=cache, use_cache=True, **deep,
            ).last_hidden_state  # fmt: skip
        finally:
            config._attn_implementation = usual
        cache.used += embeds.shape[1]
        return hidden

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.vlm.processor.tokenizer.decode([token])
        return self._texts[token]


TEXT_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids", "position_ids")


def collate_text(prompts: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """The batch without pixels (they are features already), padded on the left."""
    bare = [Encoded(p.input_ids, p.weights, p.mm_types, p.positions) for p in prompts]
    return collate(bare, pad_id, side="left")


def _media(sample: Encoded, kind: int) -> tuple[list[Any], list[Any]]:
    if kind == IMAGE:
        return sample.image_patches, sample.image_grids
    return sample.video_patches, sample.video_grids
