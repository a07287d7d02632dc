"""The operator of AlignmentRuns: `python -m operators.alignmentrun`.

observe, reconcile, standalone: pure. api, mlflow: what it talks to. cache, tracker, progress: what is known of jobs, of pages
in MLflow, of how far stages are. controller: queue and workers. __main__: kopf as watch runtime.
"""
