"""A run as a graph of stages: what exists, what to do next, and doing it on this machine.

graph     the stages of an AlignmentRun and what each reads from which
decide    pure: what is known of the stages -> the next actions
status    what a person is told of a run, as one JSON file
local     the executor of this machine: observe, decide, act
"""
