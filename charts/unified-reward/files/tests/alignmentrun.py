"""The API server takes an AlignmentRun and refuses a mistaken one. Both are dry runs: nothing is stored."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
host = os.environ["KUBERNETES_SERVICE_HOST"]
server = f"https://{f'[{host}]' if ':' in host else host}:{os.environ['KUBERNETES_SERVICE_PORT']}"
path = f"/apis/unifiedreward.dev/v1alpha1/namespaces/{(ACCOUNT / 'namespace').read_text()}/alignmentruns"


def create(document):
    """Status code and message of a dry-run creation."""
    request = urllib.request.Request(
        f"{server}{path}?dryRun=All&fieldValidation=Strict", json.dumps(document).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
    )
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ACCOUNT / "ca.crt"), timeout=30) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["message"]


good = json.loads(Path(sys.argv[1]).read_text())
status, message = create(good)
assert status == 201, f"the AlignmentRun was refused with {status}: {message}"
print("an AlignmentRun is accepted")

status, message = create({**good, "spec": {**good["spec"], "jugde": {}}})
assert status == 400 and "jugde" in message, f"a field that does not exist was not refused by its name: {status} {message}"
print(f"a mistaken one is refused: {message}")
