"""From a stage to running processes: component -> TorchX AppDef -> a scheduler.

components, appdef, plan   the TorchX components `ur.*`, rendered from the stage configs; what a stage asks for
entry, rendezvous, ending  the process wrapper: ranks, signals, true exit codes, and what it leaves behind
local                      a stage on this machine, through TorchX's `local_cwd` scheduler
pytorchjob                 a stage as a Kubeflow PyTorchJob
scheduler                  TorchX's scheduler `pytorchjob`: scheduler_options, submission (with workspace, manifest), apps
job_status, pods, causes   what a job is doing, what a pod says, why an attempt ended
job_logs, log_archive      what a job's nodes print, from the cluster and from the store
kube, tunnel, installation the cluster's API, a way to its store, what it offers
"""
