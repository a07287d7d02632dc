#!/usr/bin/env bash
# The whole method on the cluster of the present kubeconfig: install, apply, wait, show. Run again, it goes on or says what is there.
#   jobs/demo-cluster.sh NAMESPACE REGISTRY TAG
set -euo pipefail
cd "$(dirname "$0")/.."
namespace=${1:-unified-reward} registry=${2:-localhost} tag=${3:-dev}
for program in kubectl helm; do
  command -v "$program" >/dev/null || { echo "error: $program is not on PATH. Install it, or add its directory to PATH." >&2; exit 2; }
done
kubectl version >/dev/null 2>&1 || { echo "error: no cluster answers. Set KUBECONFIG, and check it with: kubectl get nodes" >&2; exit 2; }
kubectl get crd pytorchjobs.kubeflow.org >/dev/null 2>&1 && operator=false || operator=true

echo "== helm install (Kubeflow's training-operator too: $operator)"
helm upgrade --install ur charts/unified-reward --namespace "$namespace" --create-namespace --wait --timeout 10m \
  -f charts/unified-reward/values-local.yaml --set "global.image.registry=$registry" --set "global.image.tag=$tag" \
  --set "trainingOperator.install=$operator" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null

echo "== kubectl apply -n $namespace -f jobs/examples/shapes.yaml"
kubectl apply -n "$namespace" -f jobs/examples/shapes.yaml
last=
while :; do
  phase=$(kubectl get arun shapes -n "$namespace" -o jsonpath='{.status.phase}' 2>/dev/null || true)
  now=$(kubectl get arun shapes -n "$namespace" --no-headers 2>/dev/null | sed -E 's/ +[^ ]+ *$//' || true)
  [ "$now" = "$last" ] || echo "$now"
  last=$now
  case $phase in Succeeded | Failed | Cancelled) break ;; esac
  sleep 2
done
if [ "$phase" != Succeeded ]; then
  kubectl get arun shapes -n "$namespace" -o jsonpath='{.status.message}{"\n"}' >&2
  echo "error: the run has ended as $phase. Look at: kubectl describe arun shapes -n $namespace" >&2
  exit 1
fi
kubectl wait --for=condition=Succeeded arun/shapes -n "$namespace" --timeout=10s

echo "== what came out"
unified-reward summary shapes --on cluster --namespace "$namespace"
echo "MLflow: kubectl port-forward -n $namespace service/ur-mlflow 5000:5000, then http://127.0.0.1:5000"
