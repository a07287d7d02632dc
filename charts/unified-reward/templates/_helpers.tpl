{{/* Helpers of all parts. Those that take a list get (list $ ...) with the root of the calling chart first. */}}

{{- define "ur.name" -}}
{{- if gt (len .Release.Name) 30 -}}
{{- fail (printf "release name %s is %d characters long: every object's name begins with it. Choose one of at most 30" .Release.Name (len .Release.Name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "release name %s cannot begin the name of a Service: choose one of lower-case letters, digits and dashes that starts with a letter" .Release.Name) -}}
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

{{/* (list $ image ours): registry/repository:tag, or @digest, which wins. ours: the global tag applies, else the chart's version.
     All parts have the same version; an appVersion is that of what a part packages. */}}
{{- define "ur.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}{{- $ours := index . 2 -}}
{{- $global := $root.Values.global.image -}}
{{- $name := printf "%s/%s" (default $global.registry $image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- $tag := $image.tag -}}
{{- if and (not $tag) $ours -}}{{- $tag = default $root.Chart.Version $global.tag -}}{{- end -}}
{{- if eq $tag "latest" -}}
{{- fail (printf "the tag of image %s is latest, which names no version: set another in global.image.tag or in the image's own tag" $image.repository) -}}
{{- end -}}
{{- printf "%s:%s" $name (required (printf "image %s needs a tag or a digest" $image.repository) $tag) -}}
{{- end -}}
{{- end -}}

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

{{/* A list of address blocks: peers of a NetworkPolicy. Of all addresses, those of the link stay closed: the cloud's metadata is one. */}}
{{- define "ur.addresses" -}}
{{- $except := dict "0.0.0.0/0" (list "169.254.0.0/16") "::/0" (list "fe80::/10" "fd00:ec2::254/128") -}}
{{- range . }}
{{- $block := dict "cidr" . }}
{{- with index $except . }}{{- $_ := set $block "except" . }}{{- end }}
- ipBlock: {{ toJson $block }}
{{- end }}
{{- end -}}

{{/* Egress to the cluster's DNS, in pods or at an address of the node's. */}}
{{- define "ur.egressDns" -}}
{{- $policy := .Values.global.networkPolicy -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $policy.dnsNamespace }}}
    {{- include "ur.addresses" $policy.dnsAddresses | nindent 4 }}
  ports:
    {{- range $policy.dnsPorts }}
    - {port: {{ int . }}, protocol: UDP}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* Egress to the object store: the bundled MinIO, or the port of an S3 at the addresses that it may have. */}}
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
    {{- include "ur.addresses" $store.cidrs | nindent 4 }}
  ports: [{port: {{ include "ur.port" $store.endpoint }}}]
{{- end -}}
{{- end -}}

{{/* Egress to an MLflow of yours; empty where there is none. Of a Service in the cluster a policy sees the port of its pods,
     which for MLflow is mostly 5000, whatever the Service's is. */}}
{{- define "ur.egressTracking" -}}
{{- $uri := .Values.cluster.trackingUri -}}
{{- if and $uri (ne (trimSuffix "/" $uri) (printf "http://%s-mlflow:5000" (include "ur.name" .))) -}}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse $uri).host "" -}}
{{- $ports := list (include "ur.port" $uri) -}}
- to:
    {{- if regexMatch "^[^.]+\\.[^.]+\\.svc(\\.|$)" $host }}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index (splitList "." $host) 1 }}}}
    {{- $ports = append $ports "5000" | uniq }}
    {{- else if regexMatch "^[A-Za-z0-9-]+$" $host }}
    - podSelector: {}
    {{- $ports = append $ports "5000" | uniq }}
    {{- else }}
    {{- include "ur.addresses" (list "0.0.0.0/0" "::/0") | nindent 4 }}
    {{- end }}
  ports:
    {{- range $ports }}
    - {port: {{ . }}}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* The port of an address http(s)://HOST[:PORT][/PATH]; of none, that of AWS. */}}
{{- define "ur.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port -}}{{- $port -}}{{- else if eq $url.scheme "http" -}}80{{- else -}}443{{- end -}}
{{- end -}}
