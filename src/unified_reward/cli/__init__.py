"""The command `unified-reward`. Each command's work is in a module of its own, imported when it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unified_reward.errors import EXIT_USER_ERROR, UserError

EXIT_INTERRUPTED = 130
# click's UsageError, wherever typer has its click from
UsageMistake: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="unified-reward", add_completion=False, pretty_exceptions_enable=False,
    help="Train a multimodal reward model, turn it into preference data, align vision models with it.",
)  # fmt: skip


MODEL = "name of a run, directory of a Hugging Face checkpoint, or store:PREFIX in $UR_STORE"
Home = Annotated[str, typer.Option(metavar="DIR", help="store, tracking and runs; default $UR_HOME or .unified-reward")]
# metavar "": a flag takes no value, where typer would show <bool>
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="one JSON object on standard output, nothing else there")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="change a field: spec.rewardTrain.steps=50")
]
On = Annotated[str, typer.Option(metavar="local|cluster", help="where the stages run")]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", help="cluster: default $UR_NAMESPACE, else the kubeconfig's", show_default=False),
]
Engine = Annotated[
    str, typer.Option(metavar="transformers|vllm", help="what it is run by; vllm: where installed, verdicts from text")
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", metavar="NAME=VALUE", help="argument of vllm.LLM: tensor_parallel_size=2"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="float32|bfloat16",
        help="numbers it computes in; default bfloat16 on cuda, else float32",
        show_default=False,
    ),
]
Document = Annotated[Path, typer.Argument(metavar="FILE", help="an AlignmentRun as YAML", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="metadata.name of the run's document", show_default=False)]
AnyName = Annotated[str, typer.Argument(metavar="[NAME]", help="of one run; default all", show_default=False)]


@app.command()
def run(
    file: Document,
    on: On = "local",
    home: Home = "",
    set_: Sets = None,
    seed: Annotated[int | None, typer.Option(help="spec.seed", show_default=False)] = None,
    namespace: Namespace = "",
    as_json: Json = False,
) -> None:
    """Run a document to its end. Run again, it goes on where it was, or does nothing and says why."""
    overrides = [*(set_ or []), *([f"spec.seed={seed}"] if seed is not None else [])]
    if _on_cluster(on):
        from unified_reward.cli import cluster

        raise typer.Exit(cluster.run(file, overrides, namespace, as_json=as_json))
    from unified_reward.cli.running import run

    raise typer.Exit(run(file, overrides, home, as_json=as_json))


@app.command()
def status(
    name: AnyName = "", on: On = "local", home: Home = "", namespace: Namespace = "", as_json: Json = False
) -> None:
    """What the stages of a run are doing, and why."""
    if _on_cluster(on):
        from unified_reward.cli import cluster

        raise typer.Exit(cluster.status(name, namespace, as_json=as_json))
    from unified_reward.cli.runs import status

    raise typer.Exit(status(name, home, as_json=as_json))


@app.command()
def logs(
    name: Name,
    stage: Annotated[str, typer.Argument(metavar="[STAGE]", help="score, or score/vlm; default all")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", metavar="", help="go on as lines come")] = False,
    on: On = "local",
    home: Home = "",
    namespace: Namespace = "",
) -> None:
    """What the stages of a run have written."""
    if _on_cluster(on):
        from unified_reward.cli import cluster

        raise typer.Exit(cluster.logs(name, stage, namespace, follow=follow))
    from unified_reward.cli.runs import logs

    raise typer.Exit(logs(name, stage, home, follow=follow))


@app.command()
def cancel(name: Name, on: On = "local", home: Home = "", namespace: Namespace = "") -> None:
    """Stop a run. Its stages save first; `run` goes on from there (on a cluster: under another name, or deleted first)."""
    if _on_cluster(on):
        from unified_reward.cli import cluster

        raise typer.Exit(cluster.cancel(name, namespace))
    from unified_reward.cli.runs import cancel

    raise typer.Exit(cancel(name, home))


@app.command()
def summary(name: Name, on: On = "local", home: Home = "", namespace: Namespace = "", as_json: Json = False) -> None:
    """What came out of a run: judge, policies, cost, stages."""
    if _on_cluster(on):
        from unified_reward.cli import cluster

        raise typer.Exit(cluster.summary(name, namespace, as_json=as_json))
    from unified_reward.cli.runs import summary

    raise typer.Exit(summary(name, home, as_json=as_json))


@app.command()
def report(name: Name, home: Home = "") -> None:
    """Where the page of a finished run is."""
    from unified_reward.cli.runs import report

    raise typer.Exit(report(name, home))


@app.command()
def ui(
    name: AnyName = "",
    port: Annotated[int, typer.Option(help="0 = the first free one from 5000 on", min=0, max=65535)] = 0,
    home: Home = "",
) -> None:
    """Serve the MLflow pages of the runs on this machine."""
    from unified_reward.cli.pages import ui

    raise typer.Exit(ui(name, home, port))


@app.command()
def judge(
    image: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="a picture; may be given again")] = None,
    video: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="a clip; may be given again")] = None,
    caption: Annotated[str, typer.Option(help="what was asked to be drawn", show_default=False)] = "",
    question: Annotated[str, typer.Option(help="what was asked about the media", show_default=False)] = "",
    answer: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="an answer; may be given again")] = None,
    model: Annotated[str, typer.Option(help=MODEL)] = "shapes",
    template: Annotated[str, typer.Option(help="template pack; default: the judge's own", show_default=False)] = "",
    read: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="probabilities (default), text, or paper: as published, with its defects",
            show_default=False,
        ),
    ] = "",
    samples: Annotated[int, typer.Option(help="of each answer, with --read text: the majority counts", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="of several samples", min=0.0)] = 0.7,
    server: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="ask an OpenAI-compatible server instead: http://HOST:PORT/v1; API key: $UR_SERVER_KEY",
            show_default=False,
        ),
    ] = "",
    engine: Engine = "transformers",
    engine_option: EngineOptions = None,
    device: Device = "cpu",
    precision: Precision = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Ask a trained judge: which of two is better, how good is one, and why."""
    from unified_reward.cli.judging import judge

    code = judge(
        images=image or [], videos=video or [], caption=caption, question=question, answers=answer or [],
        model=model, template=template, read=read, samples=samples, temperature=temperature, server=server, home=home,
        as_json=as_json, engine=engine, options=engine_option or [], device=device, precision=precision,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def serve(
    model: Annotated[str, typer.Option(help=MODEL)] = "shapes",
    host: Annotated[str, typer.Option(help="0.0.0.0 = reachable from outside")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free", min=0, max=65535)] = 8000,
    name: Annotated[str, typer.Option(help="of the model, to clients; default: of the run", show_default=False)] = "",
    template: Annotated[str, typer.Option(help="template pack; default: the judge's own", show_default=False)] = "",
    device: Device = "cpu",
    precision: Precision = "",
    batch: Annotated[int, typer.Option(help="items judged at once", min=1)] = 128,
    queue: Annotated[int, typer.Option(help="items that may wait; beyond them clients get 429", min=1)] = 2048,
    gather_ms: Annotated[float, typer.Option(help="how long an idle server waits for company", min=0)] = 5.0,
    fetch: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="media addresses that may be fetched; default none")
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="of a picture or frame, before scaling down", min=1)] = 16_000_000,
    home: Home = "",
) -> None:
    """Serve a judge over HTTP: /v1/score, /v1/compare, /v1/chat/completions; see /docs. Token: $UR_SERVE_TOKEN."""
    from unified_reward.cli.serving import serve_judge
    from unified_reward.serving.server import ServeOptions

    options = ServeOptions(
        name,
        host,
        port,
        template,
        device,
        precision,
        batch,
        queue,
        gather_ms / 1000,
        fetch=tuple(fetch or ()),
        max_pixels=max_pixels,
    )
    raise typer.Exit(serve_judge(model, home, options))


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON: names of published prompts -> their texts")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where the packs are written")],
) -> None:
    """Make template packs of the prompts that released checkpoints were trained with."""
    from unified_reward.cli.judging import write_packs_of

    raise typer.Exit(write_packs_of(file, folder))


@app.command("eval")
def eval_(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK",
            help="genai-bench-image, -edit, -video; vl-rewardbench, videogen-rewardbench, react-video, "
            "sharegptvideo-1k, imagereward, hpdv2, hpdv3, mmrb2, vbench",
        ),
    ],
    verdicts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="a judge's answers in the benchmark's published layout", show_default=False),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the benchmark's own data", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"ask a judge instead of reading --verdicts: {MODEL}", show_default=False)
    ] = "",
    media: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where the paths in the data start", show_default=False)
    ] = None,
    items: Annotated[int, typer.Option(help="ask about this many; 0 = all (shapes: 300)", min=0)] = 0,
    votes: Annotated[int, typer.Option(help="answers to each item, where the protocol votes", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="of the votes", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="of the orders shown, and the votes")] = 0,
    template: Annotated[str, typer.Option(help="template pack; default: the judge's own", show_default=False)] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="where the judge's answers go", show_default=False)
    ] = None,
    engine: Engine = "transformers",
    engine_option: EngineOptions = None,
    device: Device = "cpu",
    precision: Precision = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Score a judge on a public benchmark, as published: from a file of its answers, or by asking it."""
    from unified_reward.cli.evaluating import ModelRequest, evaluate, evaluate_model
    from unified_reward.cli.judging import check_elsewhere, read_engine
    from unified_reward.stages.benchmark import Source

    if (verdicts is None) == (not model):
        raise UserError(field="--verdicts", value=verdicts, why="either a file of answers is scored or a judge is asked",
                        fix="Give --verdicts FILE or --model RUN, not both.")  # fmt: skip
    if verdicts is not None:
        raise typer.Exit(evaluate(benchmark, verdicts, data, as_json=as_json))
    vllm = read_engine(engine, engine_option or [])
    check_elsewhere(device, precision, vllm=vllm)
    asked = ModelRequest(model, votes, temperature, template, home, out, vllm, device, precision)
    raise typer.Exit(evaluate_model(benchmark, Source(data, media, items, seed), asked, as_json=as_json))


@app.command("import")
def import_(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="shapes; or tables, folders, mixes: PATH, FORMAT=PATH, PATH@random:10%"
        ),
    ],
    form: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="layout of the files (docs/data.md); auto tells it by itself"),
    ] = "auto",
    run: Annotated[str, typer.Option(metavar="NAME", help="run whose datasets they become")] = "imported",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="a field of the stage: max_side=256")
    ] = None,
    home: Home = "",
) -> None:
    """Import data as versioned datasets, without the other stages."""
    from unified_reward.cli.documents import import_data

    raise typer.Exit(import_data(source, form, set_ or [], run, home))


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="metadata.name of the run's document", show_default=False)],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="is made; must not be there", show_default=False)],
    policy: Annotated[
        str,
        typer.Option(metavar="NAME", help="a policy that the run aligned, instead of its judge", show_default=False),
    ] = "",
    home: Home = "",
) -> None:
    """Write a trained judge, or an aligned policy, as a directory of Hugging Face files."""
    from unified_reward.cli.exporting import export

    raise typer.Exit(export(run, directory, policy, home))


@app.command()
def render(
    file: Document,
    set_: Sets = None,
    on: Annotated[str, typer.Option(metavar="local|cluster", help="cluster: as PyTorchJobs for kubectl")] = "local",
    as_json: Json = False,
) -> None:
    """The job of each stage of a document, without starting any."""
    if on not in ("local", "cluster"):
        raise UserError(field="--on", value=on, why="there is no such place", fix="Use local or cluster.")
    from unified_reward.cli.documents import render

    raise typer.Exit(render(file, set_ or [], on=on, as_json=as_json))


@app.command()
def plan(
    file: Document,
    gpus: Annotated[int, typer.Option(help="0 = the processes of each stage", min=0, max=65536)] = 0,
    gpu_memory: Annotated[str, typer.Option(help="of one GPU")] = "80GiB",
    gpu_tflops: Annotated[float, typer.Option(help="peak of one GPU in the stage's precision", min=0.001)] = 989.0,
    mfu: Annotated[float, typer.Option(help="share of the peak that is reached", min=0.01, max=1.0)] = 0.35,
    sample_tokens: Annotated[int, typer.Option(help="tokens of an average sample, all counted", min=1)] = 1500,
    media_tokens: Annotated[int, typer.Option(help="of these, for pictures and frames", min=0)] = 900,
    target_tokens: Annotated[int, typer.Option(help="of these, learned", min=1)] = 200,
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """What each training of judges and VLM policies needs, from configs alone: memory per GPU, steps, hours. 2 = does not fit."""
    from unified_reward.cli.planning import plan
    from unified_reward.planning.estimate import Sample

    code = plan(
        file, set_ or [], gpus=gpus, gpu_memory=gpu_memory, gpu_tflops=gpu_tflops, mfu=mfu,
        sample=Sample(sample_tokens, media_tokens, target_tokens), as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def schema() -> None:
    """The JSON schema of the document."""
    from unified_reward.cli.documents import schema

    raise typer.Exit(schema())


def _on_cluster(on: str) -> bool:
    if on not in ("local", "cluster"):
        raise UserError(
            field="--on", value=on, why="it is neither local nor cluster", fix="Use --on local or --on cluster."
        )
    return on == "cluster"


def main() -> None:
    """The entry point. What a person can mend ends with one line and exit status 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="unified-reward", standalone_mode=False))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except UsageMistake as error:
        asked = error.ctx.command_path if error.ctx else app.info.name
        message = " ".join(error.format_message().split()).rstrip(".?")
        print(f"error: {message}. Help: {asked} --help", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
