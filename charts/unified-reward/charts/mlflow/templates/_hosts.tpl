{{/* MLflow answers 403 to a Host header it does not know, and compares the port too: each name with and without one. */}}
{{- define "ur.mlflowHosts" -}}
{{- $name := printf "%s-mlflow" (include "ur.name" .) -}}
{{- $namespace := .Release.Namespace -}}
{{- $domain := .Values.global.clusterDomain -}}
{{- $names := list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) (printf "%s.%s.svc.%s" $name $namespace $domain) "localhost" "127.0.0.1" -}}
{{- $hosts := list -}}
{{- range concat $names .Values.allowedHosts -}}
{{- $hosts = append $hosts . -}}
{{- if not (regexMatch ":[0-9*]+$" .) -}}{{- $hosts = append $hosts (printf "%s:*" .) -}}{{- end -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}
