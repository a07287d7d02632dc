"""Unified Reward: a judge of images and videos, preference data made with it, and policies aligned by it."""

__version__ = "0.1.0"
