"""Models and what stands directly before them: Qwen2.5-VL (tiny from config, or any checkpoint) and diffusion policies."""
