"""A key changes with whatever the output depends on, and with nothing else."""

from unified_reward.config import ArtifactRef, RewardTrainConfig, Stage
from unified_reward.config.keys import difference, identity, key_of

DATA = {"judge_records": ArtifactRef(prefix="a", digest="0" * 64)}


def _identity(**changes: object) -> dict[str, object]:
    config = RewardTrainConfig.model_validate({"steps": 10, **changes})
    return identity(Stage.REWARD_TRAIN, config, DATA, seed=0)


def test_how_a_stage_runs_is_not_part_of_its_key() -> None:
    assert key_of(_identity()) == key_of(_identity(processes=1, checkpoint_every=3))


def test_what_it_makes_is() -> None:
    other = {"judge_records": ArtifactRef(prefix="a", digest="1" * 64)}
    base = key_of(_identity())
    assert base != key_of(_identity(learning_rate=1e-4))
    assert base != key_of(identity(Stage.REWARD_TRAIN, RewardTrainConfig(steps=10), other, seed=0))
    assert base != key_of(identity(Stage.REWARD_TRAIN, RewardTrainConfig(steps=10), DATA, seed=1))


def test_where_the_data_stand_is_not() -> None:
    moved = {"judge_records": ArtifactRef(prefix="elsewhere", digest="0" * 64)}
    assert key_of(_identity()) == key_of(identity(Stage.REWARD_TRAIN, RewardTrainConfig(steps=10), moved, seed=0))


def test_the_difference_is_told_in_words() -> None:
    assert difference(_identity(), _identity(steps=20)) == ["config.steps 10 -> 20"]
    assert difference(_identity(), _identity()) == []
