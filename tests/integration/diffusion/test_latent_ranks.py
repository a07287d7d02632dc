"""SDXL under FSDP2: two gloo ranks train as one, in pieces and with recomputed blocks; what they export diffusers draws with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from unified_reward.models.diffusion_sampler import starting_noise
from unified_reward.models.tiny_latents import tiny_sdxl

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORKER = Path(__file__).with_name("latent_worker.py")
TEXTS = ["a red ring", "a blue square on white"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl(["a", "red", "blue", "ring", "square", "on", "white"]).save_pretrained(directory)
    return directory


def run(ranks: int, base: Path, out: Path, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*command, str(WORKER), str(base), str(out), json.dumps({"processes": ranks, **options})], capture_output=True,
        text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((out / "result.json").read_text()))


def test_two_ranks_train_as_one_and_export_what_diffusers_draws(base: Path, tmp_path: Path) -> None:
    one = run(1, base, tmp_path / "one", validate_every=10)
    two = run(2, base, tmp_path / "two", validate_every=10, micro_batch=1, activation_checkpointing=True)
    pieces = np.array(two["losses"]).reshape(10, 2).sum(1)  # two micro-batches a step
    np.testing.assert_allclose(pieces, one["losses"], rtol=1e-4)
    assert one["losses"][0] == pytest.approx(4 * np.log(2), rel=1e-4)
    assert abs(one["losses"][-1] - one["losses"][0]) > 0.05

    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
        tmp_path / "two" / "export", local_files_only=True, low_cpu_mem_usage=False
    )
    noise = torch.stack([starting_noise(seed, (4, 16, 16)) for seed in (1, 2)])
    drawn = pipeline(
        prompt=TEXTS, num_inference_steps=2, guidance_scale=0.0, latents=noise, output_type="np",
        generator=[torch.Generator().manual_seed(seed + 1) for seed in (1, 2)],
    ).images  # fmt: skip
    expected = (drawn * 255).round().astype(int)
    for world in ("one", "two"):  # what the ranks drew with gathered weights after the last step
        assert np.abs(np.load(tmp_path / world / "drawn.npy").astype(int) - expected).max() <= 1
    parts = {name.split("/")[0] for name in two["files"]}
    assert parts == {
        "model_index.json",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "unet",
        "vae",
    }


def test_in_bfloat16_the_denoiser_is_told_exact_times(base: Path, tmp_path: Path) -> None:
    """Cast with the other inputs, 999 would be 1000 and 499 would be 500."""
    result = run(2, base, tmp_path / "half", precision="bfloat16", steps=6)
    assert {dtype for dtype, _ in result["told"]} == {"torch.bfloat16"}
    assert {time for _, times in result["told"] for time in times} <= {249.0, 499.0, 749.0, 999.0}
    assert {999.0, 499.0} & {time for _, times in result["told"] for time in times}
    assert result["losses"][0] == pytest.approx(4 * np.log(2), rel=1e-6)  # the reference agrees to the bit
