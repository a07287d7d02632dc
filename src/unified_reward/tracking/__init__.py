"""MLflow runs, figures and the report page of a run.

    runs      stage_run: what a stage logs, written to a spool on disk and never waiting for MLflow
    buffer    Courier: brings spools to MLflow, in the stage's process or once in the launcher for all stages
    parents   calls that wait for MLflow: find_run_id, prepare
    links     the command that serves MLflow's page, and links into it
    figures   what a person wants to see, as matplotlib figures (import it where it is used: matplotlib is heavy)
    report    one self-contained HTML page of a whole run

Importing this package imports neither MLflow nor matplotlib.
"""

from unified_reward.tracking.buffer import Backlog, Courier
from unified_reward.tracking.delivery import FAILED, FINISHED, KILLED, UnavailableError
from unified_reward.tracking.links import run_url, runs_url, ui_command
from unified_reward.tracking.parents import find_run_id, prepare
from unified_reward.tracking.runs import StageRun, Target, embedded_uri, stage_run

__all__ = [
    "FAILED",
    "FINISHED",
    "KILLED",
    "Backlog",
    "Courier",
    "StageRun",
    "Target",
    "UnavailableError",
    "embedded_uri",
    "find_run_id",
    "prepare",
    "run_url",
    "runs_url",
    "stage_run",
    "ui_command",
]
