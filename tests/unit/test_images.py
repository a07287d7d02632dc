"""The images install exactly what is locked, at the versions that the tests ran with, and nothing a stage imports is missing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements/images").glob("*.txt"))
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
NOT_IN_STAGES = {"cli", "launch"}  # of launch, only what process 1 of a pod imports runs in the trainer
NOT_IN_TRAINER = {"minio_setup.py"}  # runs in the operator's image
IN_OPERATOR = ("config", "pipeline.decide", "launch.plan", "launch.pytorchjob", "launch.appdef", "store.minio_setup")
LAUNCH_IN_PODS = {"entry.py", "ending.py", "log_archive.py", "overlay.py", "rendezvous.py"}


def _name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _requirements(path: Path) -> list[str]:
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _versions(path: Path) -> dict[str, str]:
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;+]+)", line) for line in _requirements(path))
    return {_name(pin[1]): pin[2] for pin in pins if pin}


def test_locks_are_found() -> None:
    assert [path.stem for path in LOCKS] == ["mlflow", "operator", "torch-cpu", "torch-cuda", "trainer"]
    assert [path.parent.name for path in DOCKERFILES] == ["minio", "mlflow", "operator", "postgres", "trainer"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    for line in _requirements(lock):
        assert re.match(r"[A-Za-z0-9._-]+==\S+", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_versions_are_those_of_the_runtime(lock: Path) -> None:
    runtime = _versions(ROOT / "requirements/runtime.txt")
    if lock.stem == "mlflow":
        assert (
            int(_versions(lock)["urllib3"].partition(".")[0]) >= 2
        )  # MLflow's webhooks need it; TorchX keeps ours below
        del runtime["urllib3"]
    differ = {name: (pin, runtime[name]) for name, pin in _versions(lock).items() if runtime.get(name, pin) != pin}
    assert not differ, f"run `make lock`: {differ}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_what_is_asked_for_is_locked(lock: Path) -> None:
    asked = [re.match(r"[A-Za-z0-9._-]+", line) for line in _requirements(lock.with_suffix(".in"))]
    assert {_name(match[0]) for match in asked if match} <= _versions(lock).keys()


def test_the_builds_of_torch_are_told_apart() -> None:
    cpu, cuda = (_requirements(ROOT / f"requirements/images/torch-{build}.txt") for build in ("cpu", "cuda"))
    assert any(line.startswith("torch==") and "+cpu" in line for line in cpu)
    assert not any(line.startswith(("nvidia-", "triton")) for line in cpu)
    assert any(line.startswith("nvidia-nccl") for line in cuda)


def test_operator_has_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "mlflow", "mlflow-skinny", "numpy", "pyarrow", "kubernetes", "kubernetes-asyncio"}
    assert not heavy & _versions(ROOT / "requirements/images/operator.txt").keys()


@pytest.mark.parametrize("module", IN_OPERATOR)
def test_operator_has_what_its_modules_import(module: str) -> None:
    locked = _versions(ROOT / "requirements/images/operator.txt").keys()
    absent = [
        name
        for name, owners in packages_distributions().items()
        if not name.startswith("_") and name != "unified_reward" and not {_name(owner) for owner in owners} & locked
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import unified_reward.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]


def test_trainer_has_whatever_a_stage_imports() -> None:
    locked = _versions(ROOT / "requirements/images/trainer.txt") | _versions(ROOT / "requirements/images/torch-cpu.txt")
    of_module = packages_distributions()
    missing = {}
    for path in _stage_sources():
        for module in _imports(path) & of_module.keys():
            names = {_name(name) for name in of_module[module]}
            if module not in ("unified_reward", "fsdp_utils", "pynvml") and not names & locked.keys():
                missing[module] = str(path.relative_to(ROOT))
    assert not missing


def _stage_sources() -> list[Path]:
    package = ROOT / "src/unified_reward"
    sources = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in NOT_IN_STAGES]
    sources = [path for path in sources if path.name not in NOT_IN_TRAINER]
    sources += [package / "launch" / name for name in LAUNCH_IN_PODS if (package / "launch" / name).exists()]
    return sources + list((ROOT / "src/fsdp_utils").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_image_takes_any_base_and_runs_without_rights(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
    assert bases[0] == "${BASE_IMAGE}"
    assert set(bases) <= {"${BASE_IMAGE}"} | stages
    assert re.findall(r"^USER (\S+)", text, re.M)[-1] == "10001:10001"
    assert "org.opencontainers.image.licenses" in text
    assert ":latest" not in text
    assert not re.search(r"https?://", text), "package indexes are given by build arguments"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_nothing_is_installed_past_the_locks(dockerfile: Path) -> None:
    for command in re.findall(r"pip [^\n]*\binstall\b[^\n]*", dockerfile.read_text()):
        assert "--require-hashes" in command or "--no-deps" in command, command
