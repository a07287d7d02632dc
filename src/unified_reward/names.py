"""Names that separate processes of a run agree on: variables of the environment, and the tags that find a run in MLflow.

Each is written by who starts a process and read by the process: a launcher on this machine, the manifest of a job, the operator.
"""

# What a stage works on.
HOME = "UR_HOME"  # directory of everything embedded; in a pod, its scratch
STORE = "UR_STORE"  # URL of the store, where nobody names one
PARENT_KEY = "UR_PARENT_KEY"  # key of the tracking run of the whole AlignmentRun
DOCUMENT = "UR_DOCUMENT"  # the AlignmentRun as JSON: an operator's job looks ahead in it
TRACKING_SPOOL = "UR_TRACKING_SPOOL"  # directory from which the launcher delivers to MLflow; unset: the stage does
TRACKING_CLOSE_SECONDS = "UR_TRACKING_CLOSE_SECONDS"  # the longest wait for MLflow at a stage's end

# What a process says of itself: files.
ERROR_FILE = "UR_ERROR_FILE"  # one line for a person
RESULT_FILE = "UR_RESULT_FILE"  # what the stage made, as JSON
PROGRESS_FILE = "UR_PROGRESS_FILE"
EXIT_FILE = "UR_EXIT_FILE"  # exit code and CPU seconds
PID_FILE = "UR_PID_FILE"
TERMINATION_FILE = "UR_TERMINATION_FILE"  # where the kubelet looks

# What a pod is.
JOB, APP, ATTEMPT = "UR_JOB", "UR_APP", "UR_ATTEMPT"
NODE_RANK = "UR_NODE_RANK"  # replica index
MASTER = "UR_MASTER"  # worker 0 of the job, HOST:PORT
GRACE_SECONDS = "UR_GRACE_SECONDS"  # from SIGTERM to SIGKILL
WORKSPACE = "UR_WORKSPACE"  # sha256 of the code that is put over the image's

# In MLflow.
KEY_TAG = "unified_reward.key"  # names an execution; the same key resumes the same run
PARENT_TAG = "mlflow.parentRunId"
