{{/* The password travels beside the address (PGPASSWORD), so that it may hold any character. */}}
{{- define "ur.mlflowDatabaseEnv" -}}
{{- $database := .Values.database -}}
{{- if $database.bundled -}}
{{- $name := printf "%s-postgres" (include "ur.name" .) -}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ default $name $database.existingSecret }}, key: password}}
- name: MLFLOW_BACKEND_STORE_URI
  value: postgresql+psycopg://mlflow@{{ $name }}:5432/mlflow
{{- else -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ required "mlflow.database.existingSecret: name the Secret with the key `uri` of your database" $database.existingSecret }}, key: uri}}
{{- end -}}
{{- end -}}
