"""The options of the scheduler `pytorchjob` (`-cfg name=value,...`): their names, how they are read, what they say of a job."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Mapping
from typing import Any

from torchx.specs import InvalidRunConfigException, runopts

from unified_reward.config import ClusterDefaults, ClusterSpec, validate
from unified_reward.config.load import ModelType
from unified_reward.errors import UserError
from unified_reward.launch import config_files
from unified_reward.launch.causes import RETRIED, Cause, written_counts
from unified_reward.launch.option_forms import require_form

TEXT, LIST, PAIRS = str, typing.List[str], typing.Dict[str, str]  # noqa: UP006  (TorchX compares with these)
OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("namespace", TEXT, "where the job goes; default $UR_NAMESPACE, else the kubeconfig context's"),
    ("context", TEXT, "kubeconfig context; default $UR_KUBE_CONTEXT, else the current one. The handle keeps it"),
    ("image", TEXT, "image of the job; default the component's, else the installation's"),
    (
        "job_id",
        TEXT,
        "name of the job; submitting it again does nothing. Default: the component's name and a random end",
    ),
    ("queue", TEXT, "Kueue LocalQueue; the job starts when Kueue admits it"),
    ("priority_class", TEXT, "priorityClassName of the pods"),
    ("service_account", TEXT, "of the pods, which get no token"),
    ("node_selector", PAIRS, "labels a node must have: key:value;key2:value2"),
    ("tolerations", LIST, "of nodes' taints: key=value:effect is written key:value:effect, any value key::effect; a;b"),
    ("secrets", LIST, "Secrets whose keys become environment: a;b"),
    ("image_pull_secrets", LIST, "Secrets to pull the image with: a;b"),
    ("env", PAIRS, "more environment: NAME:value;NAME2:value2"),
    ("annotations", PAIRS, "more annotations of the pods: key:value;key2:value2"),
    ("shm", TEXT, "size of /dev/shm, as in 8Gi; default half of the memory"),
    ("grace", int, "seconds from SIGTERM to SIGKILL; a checkpoint must fit in. Default 60"),
    ("deadline", int, "longest seconds of an attempt; default no limit"),
    ("ttl", int, "seconds after its end when the job goes; 0 = never. Default the installation's"),
    (
        "retries",
        PAIRS,
        "further attempts by cause, made by the operator: preempted:20;memory:1;crashed:0 (the default)",
    ),
    ("workspace", TEXT, "true = put the current directory's code over the image's; or a path"),
    ("overlay", TEXT, "YAML file that is merged over the PyTorchJob; null removes"),
    ("gpu_resource", TEXT, "resource that counts GPUs; default nvidia.com/gpu"),
)
# The field of a document, or of an installation's offer, that an option says.
FIELDS = {"grace": "grace_seconds", "deadline": "deadline_seconds", "ttl": "ttl_seconds_after_finished"}
RETRY_DEFAULTS = {Cause.PREEMPTED: 20, Cause.MEMORY: 1, Cause.CRASHED: 0}


class Options(runopts):  # type: ignore[misc]  # TorchX is untyped here
    """TorchX ignores -cfg names it does not know, and shows a traceback for a bad number. Here both are one line."""

    def __init__(self) -> None:
        super().__init__()
        for name, kind, text in OPTIONS:
            self.add(name, kind, text)

    def cfg_from_str(self, cfg_str: str) -> dict[str, Any]:
        """`name=value,name2=a;b`. A piece that starts with no `name=` belongs to the option before it."""
        texts: dict[str, list[str]] = {}
        for piece in filter(None, re.split("[,;]", cfg_str or "")):
            named = re.match(r"\s*(\w+)=(.*)", piece)
            if named:
                self._known(named[1])
                texts[named[1]] = [named[2]]
            elif texts:
                texts[next(reversed(texts))].append(piece)
            else:
                raise UserError(field="-cfg", value=piece, why="it names no option", fix="Write name=value,name2=a;b.")
        self._check_files(texts)
        return {name: _value(name, self.get(name).opt_type, pieces) for name, pieces in texts.items()}

    def _check_files(self, given: Mapping[str, Any]) -> None:
        """TorchX reads .torchxconfig next, and takes no care. It warns itself of a name that there is not."""
        for name, text in config_files.texts().items():
            option = self.get(name)
            if text and option is not None and name not in given:
                _value(name, option.opt_type, re.split("[,;]", text), field=f".torchxconfig {name}")

    def resolve(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        for name in cfg:
            self._known(name)
        try:
            resolved: dict[str, Any] = super().resolve(cfg)
        except InvalidRunConfigException as error:
            kind = {LIST: "a list of texts", PAIRS: "a mapping of texts to texts", int: "a whole number"}.get(
                self.get(error.cfg_key).opt_type, "a text"
            )
            raise UserError(field=f"-cfg {error.cfg_key}", value=cfg[error.cfg_key], why=f"it is not {kind}",
                            fix="torchx runopts pytorchjob tells more.") from None  # fmt: skip
        for name, value in resolved.items():
            require_form(name, value)
        return resolved

    def _known(self, name: str) -> None:
        names = [known for known, _ in self]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
            raise UserError(field="-cfg", value=name, why="pytorchjob has no such option", fix=hint)


def offer_for(defaults: ClusterDefaults, given: Mapping[str, Any]) -> ClusterDefaults:
    """What an option says of the job and no document could: it takes the place of the installation's."""
    changed: dict[str, Any] = {"allowed_secrets": given.get("secrets", [])}  # who may create pods may name any
    for option, name in (("service_account", "service_account"), ("gpu_resource", "gpu_resource"),
                         ("image_pull_secrets", "image_pull_secrets"), ("ttl", "ttl_seconds_after_finished")):  # fmt: skip
        if option in given:
            changed[name] = given[option]
    return _validated(ClusterDefaults, {**defaults.model_dump(), **changed})


def cluster_spec(given: Mapping[str, Any], workspace: str) -> ClusterSpec:
    """What a document would say in spec.cluster. workspace: digest of what was packed, "" for none."""
    said = (
        "image",
        "queue",
        "priority_class",
        "node_selector",
        "secrets",
        "env",
        "annotations",
        "shm",
        "grace",
        "deadline",
    )
    values = {FIELDS.get(name, name): given[name] for name in said if name in given}
    values["tolerations"] = [_toleration(text) for text in given.get("tolerations", [])]
    values["workspace"] = workspace
    return _validated(ClusterSpec, values)


def _validated(model: type[ModelType], values: Mapping[str, Any]) -> ModelType:
    """With the option named that said a field. Raises UserError."""
    try:
        return validate(model, values)
    except UserError as error:
        field, _, rest = error.field.partition(".")
        option = next((name for name, said in FIELDS.items() if said == field), field)
        raise UserError(
            field=f"-cfg {option} {rest}".strip(), value=error.value, why=error.why, fix=error.fix
        ) from None


def _toleration(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UserError(field="-cfg tolerations", value=text, why="it is not key, key:value or key:value:effect",
                        fix="As in nvidia.com/gpu::NoSchedule.")  # fmt: skip
    key, value, effect = (*parts, "", "")[:3]
    return {"key": key, "operator": "Equal" if value else "Exists", "value": value, "effect": effect}


def retry_counts(given: Mapping[str, Any]) -> str:
    """How often the operator may try again, by cause, as an annotation has it."""
    asked = dict(given.get("retries", {}))
    for cause, count in asked.items():
        if cause not in RETRIED or not count.isdigit():
            raise UserError(field="-cfg retries", value=f"{cause}:{count}", why="it is no cause with a count",
                            fix="Causes are preempted, memory and crashed, as in preempted:20;memory:1.")  # fmt: skip
    return written_counts({**RETRY_DEFAULTS, **{RETRIED[cause]: int(count) for cause, count in asked.items()}})


def _value(name: str, kind: Any, pieces: list[str], field: str = "") -> Any:
    """An option's value of its type, from the text between commas and semicolons. Raises UserError."""
    field = field or f"-cfg {name}"
    if kind is LIST:
        return [piece for piece in pieces if piece]
    if kind is PAIRS:
        pairs = [piece.partition(":") for piece in pieces if piece]
        bare = next((key for key, colon, _ in pairs if not colon), None)
        if bare is not None:
            raise UserError(field=field, value=bare, why="it has no colon", fix="Write key:value;key2:value2.")
        return {key: value for key, _, value in pairs}
    text = ",".join(pieces)
    if kind is int and not text.isdigit():
        raise UserError(field=field, value=text, why="it is no whole number", fix="Write digits only.")
    return kind(text)
