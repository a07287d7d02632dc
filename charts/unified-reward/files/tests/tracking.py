"""MLflow through each name of its Service, then an experiment with a run and an artifact, which goes again."""

import os
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

os.environ["GIT_PYTHON_REFRESH"] = "quiet"
import mlflow  # noqa: E402

for address in sys.argv[1:]:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(address, answer.status)

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
experiment = client.create_experiment(f"helm-test-{uuid.uuid4().hex}")
try:
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "loss", 0.5, step=1)
    text = uuid.uuid4().hex
    client.log_text(run, text, "note.txt")
    with tempfile.TemporaryDirectory() as directory:
        found = Path(client.download_artifacts(run, "note.txt", directory)).read_text()
    assert found == text, f"the artifact came back as {found!r}"
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    client.set_terminated(run)
    print("a run with a metric and an artifact was written, read and closed")
finally:
    client.delete_experiment(experiment)
