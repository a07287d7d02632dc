"""`python -m unified_reward.cli`: the same as `unified-reward`."""

from unified_reward.cli import main

main()
