"""The operator of AlignmentRuns: `python -m operators.alignmentrun`.

Pure: reconcile decides about a run; observe says what its pods tell, stages what has happened to a stage since (records: how a
stage's record changes), jobs what is done about it, status what is said of it; outcome is what goes in and comes out.
standalone decides about a job without a run.

api, mlflow: what it talks to. cache, tracker, progress: what is known of jobs, of pages in MLflow, of how far stages are.
controller: queue and workers. __main__: kopf as watch runtime.
"""
