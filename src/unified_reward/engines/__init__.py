"""Engines: what writes answers to turns of text, pictures and clips. The judge and the policies use the same ones.

transformers_engine.TransformersEngine   a model in this process, in batches
openai_engine.OpenAiEngine               any server that speaks OpenAI's chat completions, requests in parallel
vllm_engine.VllmEngine                   vLLM in this process
"""

from unified_reward.engines.engine import Engine, Sampling, Token, Turn, Written

__all__ = ["Engine", "Sampling", "Token", "Turn", "Written"]
