"""Candidates from policies: one module per kind of policy, one seed per candidate."""
