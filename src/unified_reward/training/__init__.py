"""Training: one loop, objectives (judge SFT, DPO of VLMs, Diffusion-DPO), losses as pure functions, log-probs."""
