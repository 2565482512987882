"""Two processes learn what one learns with the doubled batch, also after an interruption. CPU and gloo.

DDP, and FSDP 2 with sharded weights. accelerate offers FSDP for accelerators only, while torch has it for the CPU too:
the program below tells accelerate that these processes had one, and everything else is real.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, random, sys
from io import StringIO
from pathlib import Path
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM
from medtune.models import scratch
from medtune.recipe import Recipe
from medtune.tuning import methods, train
from medtune.types import Sample

if os.environ.get("ACCELERATE_USE_FSDP"):
    begin = PartialState.__init__
    def as_if_with_accelerators(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_XPU
    PartialState.__init__ = as_if_with_accelerators

folder, batch_size, steps, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
tune = {"method": sys.argv[5], "batch_size": batch_size, "accumulation": 2, "epochs": 3, "max_steps": steps,
        "learning_rate": 1e-2, "evaluations": 3, "rows": rows, "scheduler": "constant", "warmup": 0,
        "checkpoint_steps": 2, "lora": {"rank": 4, "dropout": 0.0}}
recipe = Recipe.model_validate({
    "name": "t", "model": {"base": "tiny", "dtype": "float32", "device": "cpu"}, "tune": tune,
    "data": {"sources": [{"layout": "chat", "path": "unused"}]}})
draw = random.Random(0)
def sample(i):
    prompt = [draw.randrange(3, 300) for _ in range(draw.randint(2, 9))]
    answer = [draw.randrange(3, 11) for _ in range(draw.randint(1, 9))] + [2]
    return Sample(str(i), prompt + answer, [-100] * len(prompt) + answer)
samples, validation = [sample(i) for i in range(21)], [sample(i) for i in range(7)]
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                     num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2))
special = ("<pad>", "<bos>", "<end>")
tokenizer = scratch.train_tokenizer(["a b c"], 300, special, bos="<bos>", eos="<end>", pad="<pad>")
model = methods.prepare(recipe, model, tokenizer, samples)
job = train.Job(folder, "mark", Console(file=StringIO()))
trainer = train.train(recipe, model, tokenizer, train.Split(samples, validation), job)
if trainer.is_world_process_zero():
    parts = {type(p.data).__name__ for p in trainer.model.parameters()}
    facts = {"parts": sorted(parts), "log": trainer.state.log_history, "supervised": trainer.supervised_tokens}
    (folder / "facts.json").write_text(json.dumps(facts))
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
FSDP = {  # what accelerate launch --use_fsdp --fsdp_version 2 sets
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}

DEEPSPEED = {  # what accelerate launch --use_deepspeed --zero_stage 2 sets, on the CPU
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
    "ACCELERATE_MIXED_PRECISION": "no",
    "DS_ACCELERATOR": "cpu",
}


def run(folder, *, processes, batch_size, steps=8, rows="auto", method="lora", extra=None):
    folder.mkdir(exist_ok=True)
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(program), str(folder)]
    arguments = [str(batch_size), str(steps), rows, method]
    environment = ENVIRONMENT | (extra or {})
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((folder / "facts.json").read_text())
    facts["weights"] = load_file(folder / "best" / f"{'adapter_' * (method == 'lora')}model.safetensors")
    return facts


def curve(facts, name):
    return [entry[name] for entry in facts["log"] if name in entry]


def largest_difference(one, other):
    return max(float((one["weights"][name] - weight).abs().max()) for name, weight in other["weights"].items())


@pytest.mark.parametrize(
    ("rows", "method", "extra"),
    [("packed", "lora", {}), ("padded", "full", {}), ("packed", "lora", FSDP),
     ("padded", "full", FSDP)],
    ids=["packed", "padded-full", "fsdp", "fsdp-full"],
)  # fmt: skip
def test_two_processes_are_one_with_the_doubled_batch(tmp_path, rows, method, extra):
    # 21 rows, 8 in an update: the last update of each epoch is short and uneven
    one = run(tmp_path / "one", processes=1, batch_size=4, rows=rows, method=method)
    two = run(tmp_path / "two", processes=2, batch_size=2, rows=rows, method=method, extra=extra)
    assert two["parts"] == (["DTensor"] if extra else ["Tensor"])
    assert len(curve(one, "loss")) == 8
    assert curve(two, "loss") == pytest.approx(curve(one, "loss"), abs=1e-4)
    assert curve(two, "eval_loss") == pytest.approx(curve(one, "eval_loss"), abs=1e-4)
    assert two["supervised"] == one["supervised"]
    assert largest_difference(two, one) < 1e-4


@pytest.mark.parametrize("method", ["lora", "full"])
def test_deepspeed_is_one_process_with_the_doubled_batch(tmp_path, method):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs the extra deepspeed (and a C++ compiler)")
    one = run(tmp_path / "one", processes=1, batch_size=4, method=method)
    two = run(tmp_path / "two", processes=2, batch_size=2, method=method, extra=DEEPSPEED)
    assert curve(two, "loss") == pytest.approx(curve(one, "loss"), abs=1e-4)
    assert largest_difference(two, one) < 1e-4


@pytest.mark.parametrize("extra", [{}, FSDP], ids=["ddp", "fsdp"])
def test_interrupted_processes_go_on_as_if_nothing_had_been(tmp_path, extra):
    whole = run(tmp_path / "whole", processes=2, batch_size=2, steps=5, extra=extra)
    resumed = shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    # three updates are an epoch: the last checkpoint left, of step 4, stands in the middle of the second
    shutil.rmtree(resumed / "checkpoint-5")
    shutil.rmtree(resumed / "best")
    assert [path.name for path in resumed.glob("checkpoint-*")] == ["checkpoint-4"]
    again = run(resumed, processes=2, batch_size=2, steps=5, extra=extra)
    assert all(torch.equal(again["weights"][name], weight) for name, weight in whole["weights"].items())
    assert curve(again, "loss") == curve(whole, "loss")
