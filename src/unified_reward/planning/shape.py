"""The shape of a model from its config alone: no weights, no memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig

from unified_reward.config import TrainLoopConfig
from unified_reward.errors import UserError
from unified_reward.models.families import FAMILIES, family_of
from unified_reward.training.parallel import choose_trainable


@dataclass(frozen=True)
class Shape:
    """Counts of numbers. largest_unit: of a decoder layer. root_unit: of all that is in none.

    vision: of the tower with its projection. layers, hidden, intermediate, kv: of the language model (kv: width of keys
    and values together); vision_layers, vision_hidden: of the tower. patches_per_token: tower positions to one token. tied:
    whether the language model's head is its embedding table.
    """

    parameters: int
    trainable: int
    vision: int
    vision_trainable: int
    largest_unit: int
    root_unit: int
    layers: int
    hidden: int
    intermediate: int
    kv: int
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patches_per_token: int
    tied: bool


def published() -> dict[str, dict[str, Any]]:
    """Configs of released checkpoints by name."""
    text = (resources.files("unified_reward") / "planning" / "published.yaml").read_text(encoding="utf-8")
    configs: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return configs


def config_of(base: str, directory: Path | None) -> dict[str, Any]:
    """The config.json of a model's directory, or the published one its name stands for. Raises UserError for neither."""
    if directory is not None and (directory / "config.json").is_file():
        return _read(directory / "config.json")
    name = Path(base).name.lower()
    found = next((config for known, config in published().items() if name.startswith(known.lower())), None)
    if found is None:
        raise UserError(field="base", value=base, why="there is no config.json, and no released model of that name is known",
                        fix=f"Use a directory, or one of {', '.join(published())}.")  # fmt: skip
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(field="base", value=file, why=f"it cannot be read ({error})",
                        fix="Take the config.json of the checkpoint.") from error  # fmt: skip
    if not isinstance(values, dict):
        raise UserError(field="base", value=file, why="it is no mapping", fix="Take the config.json of the checkpoint.")
    return values


def shape_of(values: dict[str, Any], config: TrainLoopConfig) -> Shape:
    """The shape on the meta device, with what `config` trains. Raises UserError for another architecture."""
    kind = values.get("model_type", "")
    if kind not in FAMILIES:
        raise UserError(field="base", value=kind, why="only vision-language models are planned",
                        fix=f"Use one of {', '.join(FAMILIES)}.")  # fmt: skip
    model_config = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = FAMILIES[kind].model_class._from_config(model_config, attn_implementation="sdpa")
    choose_trainable(model, config)
    family, text = family_of(model), model.config.get_text_config()
    in_units = [sum(p.numel() for p in layer.parameters()) for layer in model.model.language_model.layers]
    total = sum(p.numel() for p in model.parameters())
    tower = [p for name, p in model.named_parameters() if name.startswith(family.vision_prefixes())]
    vision = model.config.vision_config
    heads = text.num_key_value_heads * getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    return Shape(
        parameters=total,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        vision=sum(p.numel() for p in tower),
        vision_trainable=sum(p.numel() for p in tower if p.requires_grad),
        largest_unit=max(in_units),
        root_unit=total - sum(in_units),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        kv=2 * heads,
        vocabulary=text.vocab_size,
        vision_layers=len(family.vision_blocks(model)),
        vision_hidden=vision.hidden_size,
        vision_intermediate=vision.intermediate_size,
        patches_per_token=1 if family.square else 4,
        tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
    )
