{{/* Helpers of all parts. Those that take a list get (list $ ...) with the root of the calling chart first. */}}

{{- define "ur.name" -}}
{{- if gt (len .Release.Name) 30 -}}
{{- fail (printf "release name %s is %d characters long: every object's name begins with it. Choose one of at most 30" .Release.Name (len .Release.Name)) -}}
{{- end -}}
{{- .Release.Name -}}
{{- end -}}

{{/* (list $ "component"): what a selector uses; never changes. */}}
{{- define "ur.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end -}}

{{/* (list $ "component") */}}
{{- define "ur.labels" -}}
{{- $root := index . 0 -}}
{{ include "ur.selector" . }}
app.kubernetes.io/part-of: unified-reward
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (list $ image ours): registry/repository:tag, or @digest, which wins. ours: the global tag applies. */}}
{{- define "ur.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}{{- $ours := index . 2 -}}
{{- $global := $root.Values.global.image -}}
{{- $name := printf "%s/%s" (default $global.registry $image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- $tag := $image.tag -}}
{{- if and (not $tag) $ours -}}{{- $tag = default $root.Chart.AppVersion $global.tag -}}{{- end -}}
{{- if eq $tag "latest" -}}
{{- fail (printf "the tag of image %s is latest, which names no version: set another in global.image.tag or in the image's own tag" $image.repository) -}}
{{- end -}}
{{- printf "%s:%s" $name (required (printf "image %s needs a tag or a digest" $image.repository) $tag) -}}
{{- end -}}
{{- end -}}

{{/* Our images carry one version: that of the umbrella, which subcharts know as their own. */}}
{{- define "ur.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every pod of ours has in common, for the `restricted` Pod Security level. */}}
{{- define "ur.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- include "ur.pullSecrets" . }}
{{- end -}}

{{- define "ur.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* values of a component: nodeSelector, tolerations, affinity */}}
{{- define "ur.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $ $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list $ "suffix" "key"): the value that a Secret of ours has already, else a new random one, base64. */}}
{{- define "ur.generated" -}}
{{- $root := index . 0 -}}{{- $length := index . 3 -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace (printf "%s-%s" (include "ur.name" $root) (index . 1)) -}}
{{- $value := dig "data" (index . 2) "" ($found | default dict) -}}
{{- if $value -}}{{- $value -}}{{- else -}}{{- randAlphaNum (int $length) | b64enc -}}{{- end -}}
{{- end -}}

{{- define "ur.storeEndpoint" -}}
{{- $store := .Values.global.objectStore -}}
{{- if $store.bundled -}}http://{{ include "ur.name" . }}-minio:9000{{- else -}}{{ $store.endpoint }}{{- end -}}
{{- end -}}

{{- define "ur.storeSecret" -}}
{{- default (printf "%s-store" (include "ur.name" .)) .Values.global.objectStore.existingSecret -}}
{{- end -}}

{{/* The variables by which clients of the store find it. */}}
{{- define "ur.storeEnv" -}}
{{- with include "ur.storeEndpoint" . }}
- {name: UR_S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
- {name: AWS_REGION, value: {{ .Values.global.objectStore.region | quote }}}
{{- end -}}

{{/* Egress to the cluster's DNS. */}}
{{- define "ur.egressDns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.global.networkPolicy.dnsNamespace }}}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}

{{/* Egress to the object store: the bundled MinIO, or the port of an S3 anywhere but at the cloud's metadata address. */}}
{{- define "ur.egressStore" -}}
{{- $store := .Values.global.objectStore -}}
{{- if $store.bundled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "ur.selector" (list . "minio") | nindent 10 }}
  ports: [{port: 9000}]
{{- else -}}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.169.254/32]}
    - ipBlock: {cidr: "::/0"}
  ports: [{port: {{ include "ur.storePort" . }}}]
{{- end -}}
{{- end -}}

{{- define "ur.storePort" -}}
{{- $endpoint := .Values.global.objectStore.endpoint -}}
{{- $port := regexFind ":[0-9]+$" (trimSuffix "/" $endpoint) | trimPrefix ":" -}}
{{- if $port -}}{{- $port -}}{{- else if hasPrefix "http://" $endpoint -}}80{{- else -}}443{{- end -}}
{{- end -}}
