"""The operator of AlignmentRuns: `python -m operators.alignmentrun`.

observe, reconcile: pure. api, mlflow: what it talks to. controller: cache, queue, workers. __main__: kopf as watch runtime.
"""
