"""From a stage to running processes: component -> TorchX AppDef -> a scheduler.

components      the TorchX components `ur.*`, rendered from the stage configs
entry           the process wrapper: ranks, signals, true exit codes
local           a stage on this machine, through TorchX's `local_cwd` scheduler
"""
