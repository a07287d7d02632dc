"""The process of a stage: `python -m unified_reward.stages --spec FILE`, or with what a person gives by hand.

Exit codes: 0 done, 2 something a person must mend (one line on standard error), 137 out of memory, 143 stopped by SIGTERM
(a checkpoint was saved), 1 a defect (with its traceback).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from pathlib import Path

from unified_reward.config import Stage, StageSpec, validate
from unified_reward.errors import UserError
from unified_reward.names import ERROR_FILE
from unified_reward.stages.execute import execute
from unified_reward.stages.result import leave_result
from unified_reward.stages.standalone import Request, request_spec

OUT_OF_MEMORY = 137
# Of torch: of an accelerator (torch.OutOfMemoryError is a RuntimeError), of a driver, of its allocator for the CPU.
NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    started = time.time()
    try:
        done = execute(_spec(options), started=started)
        leave_result(done, reused=done.finished < started)
    except UserError as error:
        return _explain(str(error), error.exit_code)
    except Exception as error:
        exhausted = _exhausted(error)
        if not exhausted:
            raise
        return _explain(f"{exhausted}: lower the batch of this stage, or give it more.", OUT_OF_MEMORY)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unified_reward.stages", description="Run one stage.")
    parser.add_argument("--spec", default="", help="file with a StageSpec as JSON; the other options are then not used")
    parser.add_argument("--stage", choices=[stage.value for stage in Stage])
    parser.add_argument("--run", default="shapes", help="run whose outputs are read, and to which this one belongs")
    parser.add_argument("--home", default="", help="directory of embedded store and tracking; default .unified-reward")
    parser.add_argument("--store", default="", help="store URL; default the embedded directory")
    parser.add_argument("--config", default="{}", help="the stage's config as JSON")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=PREFIX", help="read this artifact instead"
    )
    parser.add_argument("--policy", default="", help="name of the policy")
    parser.add_argument("--policy-kind", default="", help="vlm or diffusion")
    parser.add_argument("--policy-base", default="", help="model the policy starts from")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _spec(options: argparse.Namespace) -> StageSpec:
    if options.spec:
        import json

        try:
            values = json.loads(Path(options.spec).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(field="--spec", value=options.spec, why=f"it is no readable JSON ({error})",
                            fix="Name a file that holds a StageSpec.") from error  # fmt: skip
        return validate(StageSpec, values, "spec")
    if not options.stage:
        raise UserError(field="--stage", value=None, why="there is nothing to run", fix="Name a stage, or give --spec.")
    return request_spec(
        Request(
            stage=Stage(options.stage), run=options.run, home=options.home, store=options.store, config=options.config,
            inputs=options.input, policy=options.policy, policy_kind=options.policy_kind,
            policy_base=options.policy_base, seed=options.seed,
        )
    )  # fmt: skip


def _exhausted(error: BaseException | None) -> str:
    """What is exhausted, when an error, or one that it comes from, says that memory is; else ""."""
    while error is not None:
        said = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".")
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return f"memory is exhausted ({said})" if said else "memory is exhausted"
        if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
            return f"memory is exhausted ({said})"
        error = error.__cause__
    return ""


def _explain(message: str, code: int) -> int:
    """One line for a person, and the same for the launcher; of several ranks the first to fail is heard."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    path = os.environ.get(ERROR_FILE)
    if path and not Path(path).exists():
        Path(path).write_text(message, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
