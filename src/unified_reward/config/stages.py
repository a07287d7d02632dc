"""One flat model per stage: its fields are the arguments of the TorchX component and the keys of the document.

Defaults are those of the shapes world, so that everything runs as it stands; what a real model needs is in
`jobs/examples/` and, for each field, in its description.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from unified_reward.config.engines import EngineName, engine_options
from unified_reward.config.forms import Size
from unified_reward.config.model import Model, fault, unkeyed


class Stage(StrEnum):
    """The seven stages, in the order data flows."""

    IMPORT = "import"
    REWARD_TRAIN = "reward-train"
    REWARD_EVAL = "reward-eval"
    GENERATE = "generate"
    SCORE = "score"
    DPO_TRAIN = "dpo-train"
    POLICY_EVAL = "policy-eval"

    @property
    def per_policy(self) -> bool:
        """Whether the stage exists once for each policy of the run."""
        return self in (Stage.GENERATE, Stage.SCORE, Stage.DPO_TRAIN, Stage.POLICY_EVAL)


class Optimizer(StrEnum):
    MUON = "muon"
    ADAMW = "adamw"


class Selection(StrEnum):
    """Which step's weights a training stage keeps."""

    LAST = "last"
    BEST = "best"


class Precision(StrEnum):
    """Numbers that layers compute in; weights, gradient sums and optimizers stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class ShardUnits(StrEnum):
    """What is gathered at once: the whole model, or every decoder layer by itself."""

    ROOT = "root"
    BLOCKS = "blocks"


class Trains(StrEnum):
    """Which parts of a vision-language model learn."""

    ALL = "all"
    LANGUAGE = "language"
    LORA = "lora"


class Loss(StrEnum):
    """Losses of DPO on answers in words; formulas and sources are in `training/losses.py`."""

    SIGMOID = "sigmoid"
    ROBUST = "robust"
    IPO = "ipo"
    HINGE = "hinge"
    EXO_PAIR = "exo_pair"
    NCA_PAIR = "nca_pair"
    SPPO_HARD = "sppo_hard"
    APO_ZERO = "apo_zero"
    APO_DOWN = "apo_down"
    DISCOPOP = "discopop"
    SIGMOID_NORM = "sigmoid_norm"
    SFT = "sft"


class PairWay(StrEnum):
    """How candidates become one pair: the paper's two steps, or one of them, or chance (for ablations)."""

    PAIR_POINT = "pair_point"
    PAIR_ONLY = "pair_only"
    POINT_ONLY = "point_only"
    RANDOM = "random"


class Grader(StrEnum):
    """Who tells a policy's answers before alignment from those after it."""

    AUTO = "auto"
    TRUTH = "truth"
    JUDGE = "judge"


class StageConfig(Model):
    """What a stage takes of the machines it runs on. On one machine only `processes` counts."""

    processes: int = unkeyed(1, ge=1, le=4096, description="processes of this stage over all nodes (ranks)")
    nodes: int = unkeyed(1, ge=1, le=512, description="cluster: pods that share the processes evenly")
    min_nodes: int = unkeyed(
        0, ge=0, le=512, description="cluster: elastic, goes on with this many pods; 0 = not elastic"
    )
    cpu: int = unkeyed(0, ge=0, le=1024, description="cluster: cores of a pod; 0 = what its node has to spare")
    gpu: int = unkeyed(0, ge=0, le=64, description="cluster: GPUs of a pod")
    memory: Size = unkeyed("", description="cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes")

    @model_validator(mode="after")
    def _check_nodes(self) -> Self:
        if self.processes % self.nodes:
            why = f"{self.nodes} nodes cannot share {self.processes} processes evenly"
            raise fault("processes", self.processes, why, f"Use a multiple of {self.nodes}, or change nodes.")
        if self.min_nodes > self.nodes:
            raise fault("min_nodes", self.min_nodes, f"it is above nodes ({self.nodes})", "Use at most that.")
        return self

    @property
    def processes_per_node(self) -> int:
        return self.processes // self.nodes


class TrainLoopConfig(StageConfig):
    """What every training stage shares. Batches are global: the same numbers hold at any world size."""

    processes: int = unkeyed(2, ge=1, le=4096, description="FSDP ranks")
    steps: int = Field(200, ge=1, description="optimizer steps")
    global_batch: int = Field(32, ge=1, description="samples per optimizer step, over all ranks")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate (real models: 2.5e-6 judge, 5e-7 DPO)")
    optimizer: Optimizer = Field(Optimizer.MUON, description="muon (2-D hidden matrices; AdamW on the rest) or adamw")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up")
    decay_fraction: float = Field(0.4, ge=0, le=1, description="share of the steps, at the end, that decay linearly")
    clip_norm: float = Field(1.0, gt=0, description="largest global gradient norm")
    checkpoint_every: int = unkeyed(100, ge=1, description="steps between checkpoints one can resume from")
    keep_checkpoints: int = unkeyed(2, ge=1, description="committed checkpoints kept")
    validate_every: int = Field(0, ge=0, description="steps between validations; 0 = never")
    select: Selection = Field(Selection.LAST, description="last step, or the best on the validation split")
    micro_batch: int = unkeyed(0, ge=0, description="samples of a rank in one forward; 0 = its whole share of a step")
    precision: Precision = Field(Precision.FLOAT32, description="layers compute in float32 or bfloat16 (real models)")
    activation_checkpointing: bool = unkeyed(
        False, description="keep only each layer's input and compute it again: a third more work, far less memory"
    )
    shard_units: ShardUnits = unkeyed(
        ShardUnits.ROOT, description="gathered at once: root (tiny models) or blocks (real ones)"
    )
    trains: Trains = Field(
        Trains.ALL, description="VLM: all, language (vision tower frozen) or lora (low-rank updates)"
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="lora: rank of the update of each linear layer")
    lora_alpha: float = Field(32.0, gt=0, description="lora: the update is scaled by alpha / rank")

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.global_batch % self.processes:
            low = self.global_batch // self.processes * self.processes
            ways = f"{low} or {low + self.processes}" if low else f"{self.processes}"
            why = f"{self.processes} processes cannot share it evenly"
            raise fault("global_batch", self.global_batch, why, f"Use {ways}, or change processes.")
        for nodes in range(self.min_nodes or self.nodes, self.nodes):
            world = nodes * self.processes_per_node
            if self.global_batch % world:
                why = f"{world} processes, which minNodes allows, cannot share it evenly"
                raise fault(
                    "global_batch", self.global_batch, why, "Use a multiple of every size from minNodes up to nodes."
                )
        if self.select is Selection.BEST and not self.validate_every:
            raise fault("select", "best", "validateEvery is 0, so there is nothing to choose by", "Set validateEvery.")
        return self


class ImportConfig(StageConfig):
    """Datasets as versioned parquet and content-addressed media: judge records, and prompts for the policies."""

    source: str = Field(
        "shapes", description="shapes (the embedded world), files (each tells its format), or the name of a format"
    )
    paths: list[str] = Field(
        default_factory=list,
        description="files: tables, folders of them or train_data.yaml mixes, each as [FORMAT=]PATH[@random:10%]",
    )
    vlm_prompts: list[str] = Field(
        default_factory=list,
        description="prompts of VLM policies: tables, folders of them or mixes, each as PATH[@random:10%]",
    )
    image_prompts: list[str] = Field(
        default_factory=list,
        description="captions of image policies: likewise, or text files with a caption a line",
    )
    folder: str = Field(
        "",
        description="files: directory or store:PREFIX that all relative paths start from; what it holds is part of the key",
    )
    media_root: str = Field(".", description="files: directory that media paths start from, before a file's own")
    train_records: int = Field(8320, ge=0, description="shapes: judge records to learn from, over all eight tasks")
    eval_records: int = Field(300, ge=0, description="shapes: held-out judge records for each of the eight tasks")
    prompts: int = Field(600, ge=0, description="shapes: training prompts of the VLM policy")
    eval_prompts: int = Field(400, ge=0, description="shapes: held-out prompts of the VLM policy")
    image_repeats: int = Field(4, ge=1, description="shapes: times each training caption is asked of the image policy")
    video_frames: int = Field(8, ge=1, le=256, description="files: frames sampled evenly from a video (paper: 8 or 16)")
    max_side: int = Field(512, ge=16, le=8192, description="files: longer side in pixels to scale media down to")
    max_megapixels: int = Field(64, ge=1, le=1000, description="files: refuse pictures and frames that are larger")
    max_megabytes: int = Field(512, ge=1, le=65536, description="files: refuse media files that are larger")
    max_seconds: float = Field(600.0, gt=0, description="files: refuse videos that are longer")
    held_out: float = Field(
        0.25, gt=0, lt=1, description="files: share of records, and of prompts, kept for evaluation"
    )
    max_rejects: float = Field(
        0.5, ge=0, le=1, description="files: share of records, or prompts, that may be left out, counted and listed"
    )
    allow_missing: bool = Field(False, description="files: let any number of records and prompts be left out")
    decoders: int = unkeyed(0, ge=0, le=256, description="files: media decoded side by side; 0 = one for each core")


class RewardTrainConfig(TrainLoopConfig):
    """Judge SFT on all tasks at once (paper, section III.A)."""

    steps: int = Field(260, ge=1, description="optimizer steps")
    decay_fraction: float = Field(0.7, ge=0, le=1, description="share of the steps, at the end, that decay linearly")
    base: str = Field("builtin:shapes/vlm", description="start from builtin:NAME, a directory, or store:PREFIX")
    template: str = Field("shapes", description="template pack: shapes, default, or a path to a YAML file")
    tasks: list[str] = Field(
        default_factory=list, description="judge tasks to train on (image_generation_pair); empty = all in the data"
    )


class RewardEvalConfig(StageConfig):
    """The judge against held-out labels, in both orders."""

    records: int = Field(0, ge=0, description="records per task; 0 = all held-out ones")
    benchmark: str = Field("", description="benchmarks that the judge is asked too, by commas (docs/benchmarks.md)")
    benchmark_data: str = Field(
        "", description="folder with their data, one folder each; empty = made in the shapes world"
    )
    benchmark_items: int = Field(0, ge=0, description="items of each; 0 = all (shapes: 300)")
    batch: int = unkeyed(128, ge=1, description="queries judged at once")


class GenerateConfig(StageConfig):
    """N candidates per prompt from the policy (paper: N = 10)."""

    candidates: int = Field(10, ge=2, le=1024, description="candidates per prompt (N, even)")
    temperature: float = Field(1.0, gt=0, description="VLM: sampling temperature (paper: 0.7)")
    max_new_tokens: int = Field(24, ge=1, le=32768, description="VLM: longest answer in tokens")
    sampler_steps: int = Field(12, ge=1, le=1000, description="diffusion: denoising steps")
    guidance: float = Field(1.0, ge=0, description="diffusion: classifier-free guidance; up to 1 = off")
    batch: int = unkeyed(256, ge=1, description="candidates drawn at once; vllm chooses by itself")
    shard_prompts: int = unkeyed(50, ge=1, description="prompts per committed shard")
    engine: EngineName = Field(
        EngineName.TRANSFORMERS, description="VLM: transformers, or vllm where it is installed (docs/judge.md)"
    )
    engine_options: list[str] = Field(
        default_factory=list, description="vllm: arguments of vllm.LLM, each as NAME=VALUE (max_model_len=8192)"
    )
    tensor_parallel: int = unkeyed(
        1, ge=1, le=64, description="vllm: GPUs of one engine; every process has an engine of its own"
    )

    @model_validator(mode="after")
    def _check_even(self) -> Self:
        if self.candidates % 2:
            fix = f"Use {self.candidates - 1} or {self.candidates + 1}."
            raise fault("candidates", self.candidates, "candidates are ranked in disjoint pairs", fix)
        return self

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.engine is not EngineName.VLLM:
            for name in ("engine_options", "tensor_parallel"):
                if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                    raise fault(
                        name, getattr(self, name), f"engine is {self.engine}", "Set engine: vllm, or leave it out."
                    )
            return self
        try:
            options = engine_options(self.engine_options)
        except ValueError as error:
            raise fault("engine_options", self.engine_options, str(error), "Write max_model_len=8192, say.") from None
        if "tensor_parallel_size" in options:
            why = "how many GPUs an engine takes has a field of its own"
            raise fault("engine_options", self.engine_options, why, "Use tensorParallel.")
        needed = self.processes_per_node * self.tensor_parallel
        if self.gpu and self.gpu < needed:
            why = f"{self.processes_per_node} engines of a pod with {self.tensor_parallel} GPUs each take {needed}"
            raise fault("gpu", self.gpu, why, f"Use {needed}, or fewer processes.")
        return self


class ScoreConfig(StageConfig):
    """Pair ranking, then point sifting (paper, section III.B)."""

    way: PairWay = Field(PairWay.PAIR_POINT, description="pair_point (paper), pair_only, point_only or random")
    min_margin: float = Field(
        0.0, ge=0, description="keep a pair when chosen - rejected exceeds this, on the judge's scale"
    )
    max_inconsistency: float = Field(
        1.0, gt=0, le=1, description="ignore verdicts whose P(first) differs by more between the orders"
    )
    max_pairs: int = Field(0, ge=0, description="keep this many pairs, drawn evenly; 0 = all")
    batch: int = unkeyed(128, ge=1, description="queries judged at once")
    shard_prompts: int = unkeyed(100, ge=1, description="prompts per committed shard")


class DpoTrainConfig(TrainLoopConfig):
    """DPO of the policy on the judge's pairs (paper, eq. 3 for VLMs, eq. 4 for diffusion models)."""

    beta: float = Field(0.1, gt=0, description="KL strength: 0.1 for VLMs (paper), 2000-5000 for diffusion models")
    loss: Loss = Field(Loss.SIGMOID, description=f"VLM: {', '.join(Loss)} (training/losses.py)")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="VLM: share of labels taken to be wrong")
    noise_from: float = Field(
        0.0, ge=0, lt=1, description="diffusion: draw timesteps from this share of the schedule up"
    )
    noise_levels: int = Field(
        0, ge=0, le=1000, description="diffusion: draw only so many timesteps, evenly spaced (SDXL-Turbo: 4); 0 = all"
    )
    validation_prompts: int = Field(200, ge=0, description="validation prompts answered at each validation")
    validation_tokens: int = Field(24, ge=1, le=32768, description="VLM: longest validation answer in tokens")
    validation_images: int = Field(16, ge=1, description="diffusion: images drawn for each validation caption")
    validation_steps: int = Field(12, ge=1, le=1000, description="diffusion: denoising steps of validation images")


class PolicyEvalConfig(StageConfig):
    """The policy before and after on held-out prompts: against their known truth, or as a judge compares the two."""

    grader: Grader = Field(
        Grader.AUTO, description="truth (known facts), judge (its opinion), or auto: truth where it is known"
    )
    judge: str = Field(
        "", description="judge that compares: empty = the one of this run, or builtin:NAME, a directory, store:PREFIX"
    )
    judge_template: str = Field(
        "", description="template pack of that judge; empty = the one saved with it, else default"
    )
    max_new_tokens: int = Field(24, ge=1, le=32768, description="VLM: longest answer in tokens (greedy)")
    sampler_steps: int = Field(12, ge=1, le=1000, description="diffusion: denoising steps")
    guidance: float = Field(1.0, ge=0, description="diffusion: classifier-free guidance; up to 1 = off")
    images_per_prompt: int = Field(40, ge=1, description="diffusion: images drawn for each held-out caption")
    batch: int = unkeyed(256, ge=1, description="prompts answered at once, and queries judged at once")

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        for name in ("judge", "judge_template"):
            if self.grader is Grader.TRUTH and getattr(self, name):
                raise fault(
                    name, getattr(self, name), "grader is truth, so no judge is asked", "Leave one of them out."
                )
        if self.judge_template and not self.judge:
            why = "this run's judge speaks the words it was trained with"
            raise fault("judge_template", self.judge_template, why, "Leave it out, or name another judge.")
        return self


STAGE_CONFIGS: dict[Stage, type[StageConfig]] = {
    Stage.IMPORT: ImportConfig,
    Stage.REWARD_TRAIN: RewardTrainConfig,
    Stage.REWARD_EVAL: RewardEvalConfig,
    Stage.GENERATE: GenerateConfig,
    Stage.SCORE: ScoreConfig,
    Stage.DPO_TRAIN: DpoTrainConfig,
    Stage.POLICY_EVAL: PolicyEvalConfig,
}
