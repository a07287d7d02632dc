"""The TorchX components: `torchx run -s local_cwd ur.<stage> --help`. Rendered from the config models; do not edit.

Write it again with: python -m unified_reward.launch.render_components
"""

# TorchX 0.7 cannot read postponed annotations, so there is no `from __future__ import annotations` here.
from torchx.specs import AppDef

from unified_reward.launch.appdef import component_app


def import_data(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    processes: int = 1,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    source: str = "shapes",
    paths: str = "",
    vlm_prompts: str = "",
    image_prompts: str = "",
    folder: str = "",
    media_root: str = ".",
    train_records: int = 8320,
    eval_records: int = 300,
    prompts: int = 600,
    eval_prompts: int = 400,
    image_repeats: int = 4,
    video_frames: int = 8,
    max_side: int = 512,
    max_megapixels: int = 64,
    max_megabytes: int = 512,
    max_seconds: float = 600.0,
    held_out: float = 0.25,
    max_rejects: float = 0.5,
    allow_missing: bool = False,
    decoders: int = 0,
) -> AppDef:
    """Datasets as versioned parquet and content-addressed media: judge records, and prompts for the policies.

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        processes: processes of this stage over all nodes (ranks)
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        source: shapes (the embedded world), files (each tells its format), or the name of a format
        paths: files: tables, folders of them or train_data.yaml mixes, each as [FORMAT=]PATH[@random:10%%] (comma-
            separated)
        vlm_prompts: prompts of VLM policies: tables, folders of them or mixes, each as PATH[@random:10%%] (comma-
            separated)
        image_prompts: captions of image policies: likewise, or text files with a caption a line (comma-separated)
        folder: files: directory or store:PREFIX that all relative paths start from; what it holds is part of the key
        media_root: files: directory that media paths start from, before a file's own
        train_records: shapes: judge records to learn from, over all eight tasks
        eval_records: shapes: held-out judge records for each of the eight tasks
        prompts: shapes: training prompts of the VLM policy
        eval_prompts: shapes: held-out prompts of the VLM policy
        image_repeats: shapes: times each training caption is asked of the image policy
        video_frames: files: frames sampled evenly from a video (paper: 8 or 16)
        max_side: files: longer side in pixels to scale media down to
        max_megapixels: files: refuse pictures and frames that are larger
        max_megabytes: files: refuse media files that are larger
        max_seconds: files: refuse videos that are longer
        held_out: files: share of records, and of prompts, kept for evaluation
        max_rejects: files: share of records, or prompts, that may be left out, counted and listed
        allow_missing: files: let any number of records and prompts be left out
        decoders: files: media decoded side by side; 0 = one for each core
    """
    return component_app("import", locals(), [])


def reward_train(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    input_judge_records: str = "",
    processes: int = 2,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    steps: int = 260,
    global_batch: int = 32,
    learning_rate: float = 0.002,
    optimizer: str = "muon",
    weight_decay: float = 0.0,
    warmup_steps: int = 20,
    decay_fraction: float = 0.7,
    clip_norm: float = 1.0,
    checkpoint_every: int = 100,
    keep_checkpoints: int = 2,
    validate_every: int = 0,
    select: str = "last",
    micro_batch: int = 0,
    precision: str = "float32",
    activation_checkpointing: bool = False,
    shard_units: str = "root",
    trains: str = "all",
    lora_rank: int = 16,
    lora_alpha: float = 32.0,
    base: str = "builtin:shapes/vlm",
    template: str = "shapes",
    tasks: str = "",
) -> AppDef:
    """Judge SFT on all tasks at once (paper, section III.A).

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        input_judge_records: prefix of the artifact to read; empty = see run
        processes: FSDP ranks
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        steps: optimizer steps
        global_batch: samples per optimizer step, over all ranks
        learning_rate: peak learning rate (real models: 2.5e-6 judge, 5e-7 DPO)
        optimizer: muon (2-D hidden matrices; AdamW on the rest) or adamw
        weight_decay: decoupled weight decay
        warmup_steps: steps of linear warm-up
        decay_fraction: share of the steps, at the end, that decay linearly
        clip_norm: largest global gradient norm
        checkpoint_every: steps between checkpoints one can resume from
        keep_checkpoints: committed checkpoints kept
        validate_every: steps between validations; 0 = never
        select: last step, or the best on the validation split
        micro_batch: samples of a rank in one forward; 0 = its whole share of a step
        precision: layers compute in float32 or bfloat16 (real models)
        activation_checkpointing: keep only each layer's input and compute it again: a third more work, far less
            memory
        shard_units: gathered at once: root (tiny models) or blocks (real ones)
        trains: VLM: all, language (vision tower frozen) or lora (low-rank updates)
        lora_rank: lora: rank of the update of each linear layer
        lora_alpha: lora: the update is scaled by alpha / rank
        base: start from builtin:NAME, a directory, or store:PREFIX
        template: template pack: shapes, default, or a path to a YAML file
        tasks: judge tasks to train on (image_generation_pair); empty = all in the data (comma-separated)
    """
    return component_app("reward-train", locals(), ["judge_records"])


def reward_eval(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    input_judge_records: str = "",
    input_judge: str = "",
    processes: int = 1,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    records: int = 0,
    benchmark: str = "",
    benchmark_data: str = "",
    benchmark_items: int = 0,
    batch: int = 128,
) -> AppDef:
    """The judge against held-out labels, in both orders.

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        input_judge_records: prefix of the artifact to read; empty = see run
        input_judge: prefix of the artifact to read; empty = see run
        processes: processes of this stage over all nodes (ranks)
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        records: records per task; 0 = all held-out ones
        benchmark: benchmarks that the judge is asked too, by commas (docs/benchmarks.md)
        benchmark_data: folder with their data, one folder each; empty = made in the shapes world
        benchmark_items: items of each; 0 = all (shapes: 300)
        batch: queries judged at once
    """
    return component_app("reward-eval", locals(), ["judge_records", "judge"])


def generate(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    policy: str = "vlm",
    policy_kind: str = "",
    policy_base: str = "",
    input_prompts_vlm: str = "",
    input_prompts_diffusion: str = "",
    processes: int = 1,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    candidates: int = 10,
    temperature: float = 1.0,
    max_new_tokens: int = 24,
    sampler_steps: int = 12,
    guidance: float = 1.0,
    batch: int = 256,
    shard_prompts: int = 50,
    engine: str = "transformers",
    engine_options: str = "",
    tensor_parallel: int = 1,
) -> AppDef:
    """N candidates per prompt from the policy (paper: N = 10).

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        policy: name of the policy (vlm and image are those of the shapes world)
        policy_kind: vlm or diffusion; empty = that of the shapes world's policy
        policy_base: builtin:NAME, a directory or store:PREFIX; empty = that of the shapes world's policy
        input_prompts_vlm: prefix of the artifact to read; empty = see run
        input_prompts_diffusion: prefix of the artifact to read; empty = see run
        processes: processes of this stage over all nodes (ranks)
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        candidates: candidates per prompt (N, even)
        temperature: VLM: sampling temperature (paper: 0.7)
        max_new_tokens: VLM: longest answer in tokens
        sampler_steps: diffusion: denoising steps
        guidance: diffusion: classifier-free guidance; up to 1 = off
        batch: candidates drawn at once; vllm chooses by itself
        shard_prompts: prompts per committed shard
        engine: VLM: transformers, or vllm where it is installed (docs/judge.md)
        engine_options: vllm: arguments of vllm.LLM, each as NAME=VALUE (max_model_len=8192) (comma-separated)
        tensor_parallel: vllm: GPUs of one engine; every process has an engine of its own
    """
    return component_app("generate", locals(), ["prompts_vlm", "prompts_diffusion"])


def score(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    policy: str = "vlm",
    policy_kind: str = "",
    policy_base: str = "",
    input_prompts_vlm: str = "",
    input_candidates: str = "",
    input_judge: str = "",
    input_prompts_diffusion: str = "",
    processes: int = 1,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    way: str = "pair_point",
    min_margin: float = 0.0,
    max_inconsistency: float = 1.0,
    max_pairs: int = 0,
    batch: int = 128,
    shard_prompts: int = 100,
) -> AppDef:
    """Pair ranking, then point sifting (paper, section III.B).

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        policy: name of the policy (vlm and image are those of the shapes world)
        policy_kind: vlm or diffusion; empty = that of the shapes world's policy
        policy_base: builtin:NAME, a directory or store:PREFIX; empty = that of the shapes world's policy
        input_prompts_vlm: prefix of the artifact to read; empty = see run
        input_candidates: prefix of the artifact to read; empty = see run
        input_judge: prefix of the artifact to read; empty = see run
        input_prompts_diffusion: prefix of the artifact to read; empty = see run
        processes: processes of this stage over all nodes (ranks)
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        way: pair_point (paper), pair_only, point_only or random
        min_margin: keep a pair when chosen - rejected exceeds this, on the judge's scale
        max_inconsistency: ignore verdicts whose P(first) differs by more between the orders
        max_pairs: keep this many pairs, drawn evenly; 0 = all
        batch: queries judged at once
        shard_prompts: prompts per committed shard
    """
    return component_app("score", locals(), ["prompts_vlm", "candidates", "judge", "prompts_diffusion"])


def dpo_train(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    policy: str = "vlm",
    policy_kind: str = "",
    policy_base: str = "",
    input_prompts_vlm: str = "",
    input_candidates: str = "",
    input_pairs: str = "",
    input_prompts_diffusion: str = "",
    processes: int = 2,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    steps: int = 200,
    global_batch: int = 32,
    learning_rate: float = 0.002,
    optimizer: str = "muon",
    weight_decay: float = 0.0,
    warmup_steps: int = 20,
    decay_fraction: float = 0.4,
    clip_norm: float = 1.0,
    checkpoint_every: int = 100,
    keep_checkpoints: int = 2,
    validate_every: int = 0,
    select: str = "last",
    micro_batch: int = 0,
    precision: str = "float32",
    activation_checkpointing: bool = False,
    shard_units: str = "root",
    trains: str = "all",
    lora_rank: int = 16,
    lora_alpha: float = 32.0,
    beta: float = 0.1,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
    noise_from: float = 0.0,
    noise_levels: int = 0,
    validation_prompts: int = 200,
    validation_tokens: int = 24,
    validation_images: int = 16,
    validation_steps: int = 12,
) -> AppDef:
    """DPO of the policy on the judge's pairs (paper, eq. 3 for VLMs, eq. 4 for diffusion models).

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        policy: name of the policy (vlm and image are those of the shapes world)
        policy_kind: vlm or diffusion; empty = that of the shapes world's policy
        policy_base: builtin:NAME, a directory or store:PREFIX; empty = that of the shapes world's policy
        input_prompts_vlm: prefix of the artifact to read; empty = see run
        input_candidates: prefix of the artifact to read; empty = see run
        input_pairs: prefix of the artifact to read; empty = see run
        input_prompts_diffusion: prefix of the artifact to read; empty = see run
        processes: FSDP ranks
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        steps: optimizer steps
        global_batch: samples per optimizer step, over all ranks
        learning_rate: peak learning rate (real models: 2.5e-6 judge, 5e-7 DPO)
        optimizer: muon (2-D hidden matrices; AdamW on the rest) or adamw
        weight_decay: decoupled weight decay
        warmup_steps: steps of linear warm-up
        decay_fraction: share of the steps, at the end, that decay linearly
        clip_norm: largest global gradient norm
        checkpoint_every: steps between checkpoints one can resume from
        keep_checkpoints: committed checkpoints kept
        validate_every: steps between validations; 0 = never
        select: last step, or the best on the validation split
        micro_batch: samples of a rank in one forward; 0 = its whole share of a step
        precision: layers compute in float32 or bfloat16 (real models)
        activation_checkpointing: keep only each layer's input and compute it again: a third more work, far less
            memory
        shard_units: gathered at once: root (tiny models) or blocks (real ones)
        trains: VLM: all, language (vision tower frozen) or lora (low-rank updates)
        lora_rank: lora: rank of the update of each linear layer
        lora_alpha: lora: the update is scaled by alpha / rank
        beta: KL strength: 0.1 for VLMs (paper), 2000-5000 for diffusion models
        loss: VLM: sigmoid, robust, ipo, hinge, exo_pair, nca_pair, sppo_hard, apo_zero, apo_down, discopop,
            sigmoid_norm, sft (training/losses.py)
        label_smoothing: VLM: share of labels taken to be wrong
        noise_from: diffusion: draw timesteps from this share of the schedule up
        noise_levels: diffusion: draw only so many timesteps, evenly spaced (SDXL-Turbo: 4); 0 = all
        validation_prompts: validation prompts answered at each validation
        validation_tokens: VLM: longest validation answer in tokens
        validation_images: diffusion: images drawn for each validation caption
        validation_steps: diffusion: denoising steps of validation images
    """
    return component_app("dpo-train", locals(), ["prompts_vlm", "candidates", "pairs", "prompts_diffusion"])


def policy_eval(
    run: str = "shapes",
    home: str = "",
    store: str = "",
    seed: int = 0,
    spec: str = "",
    policy: str = "vlm",
    policy_kind: str = "",
    policy_base: str = "",
    input_prompts_vlm: str = "",
    input_policy: str = "",
    input_judge: str = "",
    input_prompts_diffusion: str = "",
    processes: int = 1,
    nodes: int = 1,
    min_nodes: int = 0,
    cpu: int = 0,
    gpu: int = 0,
    memory: str = "",
    grader: str = "auto",
    judge: str = "",
    judge_template: str = "",
    max_new_tokens: int = 24,
    sampler_steps: int = 12,
    guidance: float = 1.0,
    images_per_prompt: int = 40,
    batch: int = 256,
) -> AppDef:
    """The policy before and after on held-out prompts: against their known truth, or as a judge compares the two.

    Args:
        run: run that this stage belongs to; inputs not named below are those its last stages made
        home: directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward
        store: store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory
        seed: seed of everything that is drawn
        spec: file with a whole StageSpec as JSON; all other arguments are then not used
        policy: name of the policy (vlm and image are those of the shapes world)
        policy_kind: vlm or diffusion; empty = that of the shapes world's policy
        policy_base: builtin:NAME, a directory or store:PREFIX; empty = that of the shapes world's policy
        input_prompts_vlm: prefix of the artifact to read; empty = see run
        input_policy: prefix of the artifact to read; empty = see run
        input_judge: prefix of the artifact to read; empty = see run
        input_prompts_diffusion: prefix of the artifact to read; empty = see run
        processes: processes of this stage over all nodes (ranks)
        nodes: cluster: pods that share the processes evenly
        min_nodes: cluster: elastic, goes on with this many pods; 0 = not elastic
        cpu: cluster: cores of a pod; 0 = what its node has to spare
        gpu: cluster: GPUs of a pod
        memory: cluster: memory of a pod (64Gi); empty = 2Gi for each of its processes
        grader: truth (known facts), judge (its opinion), or auto: truth where it is known
        judge: judge that compares: empty = the one of this run, or builtin:NAME, a directory, store:PREFIX
        judge_template: template pack of that judge; empty = the one saved with it, else default
        max_new_tokens: VLM: longest answer in tokens (greedy)
        sampler_steps: diffusion: denoising steps
        guidance: diffusion: classifier-free guidance; up to 1 = off
        images_per_prompt: diffusion: images drawn for each held-out caption
        batch: prompts answered at once, and queries judged at once
    """
    return component_app("policy-eval", locals(), ["prompts_vlm", "policy", "judge", "prompts_diffusion"])
