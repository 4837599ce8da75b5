"""Rewards for those who use a model: `RewardModel` in Python, and an HTTP service."""

from rm_assets.serving.reward_model import RewardModel, TruncatedResponse

__all__ = ["RewardModel", "TruncatedResponse"]
