"""transformers knows the TFB models, whichever of the two packages a program imports first, and however.

Each order runs in a process of its own. They are forks of one that has imported what transformers imports of others,
which takes most of the time, but neither transformers nor the package.
"""

import json
import subprocess
import sys

import pytest

from tests.helpers.prompt_models import save_model_without_weights

ORDERS = {
    "package first": "import bayesian_transformer",
    "transformers first, all of it": """
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
import bayesian_transformer
""",
    "transformers first, nothing of it": "import transformers, bayesian_transformer",
    "transformers first, half of it": """
from transformers import AutoConfig
import bayesian_transformer
""",
    "a model of transformers first": """
import bayesian_transformer
from transformers import LlamaForCausalLM
""",
    "the registry's own module": """
import bayesian_transformer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
""",
    "a module of the package": "from bayesian_transformer.config import NoiseConfig",
    "a registering module of the package": """
from bayesian_transformer.vllm_models.tfb_llama import TFBLlamaForCausalLM
""",
    "a lazy name of the package": "from bayesian_transformer import BayesianForCausalLMModel",
    "twice": """
import importlib, bayesian_transformer
importlib.reload(bayesian_transformer)
import transformers
importlib.reload(bayesian_transformer)
from transformers import AutoModelForCausalLM
importlib.reload(bayesian_transformer)
assert sum(type(finder).__name__ == "_Watcher" for finder in sys.meta_path) == 1
""",
    "modules as attributes": """
import bayesian_transformer
assert bayesian_transformer.uncertainty.token_uncertainty and bayesian_transformer.config.NoiseConfig
assert bayesian_transformer.register_configs and not hasattr(bayesian_transformer, "no_such_thing")
""",
    "after a registration that failed": """
import bayesian_transformer, logging
logging.basicConfig(level=logging.CRITICAL)
class Failing:
    def find_spec(self, name, path=None, target=None):
        if name == "bayesian_transformer.hf.tokenizers":
            raise ImportError("not today")
sys.meta_path.append(failing := Failing())
sys.meta_path.insert(0, sys.meta_path.pop())
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # must not fail because of us
sys.meta_path.remove(failing)
import bayesian_transformer.hf.tokenizers
""",
    "purged and imported again": """
import bayesian_transformer
for name in [name for name in sys.modules if name.partition(".")[0] == "bayesian_transformer"]:
    del sys.modules[name]
import bayesian_transformer
assert sum(getattr(finder, "watches_for_tokur", False) for finder in sys.meta_path) == 1
""",
    # The first import of transformers alone, by several threads at once, fails without us too.
    "threads": """
import threading, transformers
errors = []
start = threading.Barrier(4)
def work(code):
    start.wait()
    try:
        exec(code, {})
    except BaseException as error:
        errors.append(f"{code}: {error!r}")
codes = ("import bayesian_transformer", "from bayesian_transformer import BayesianForCausalLMModel",
         "from transformers import AutoModelForCausalLM", "from transformers import AutoTokenizer, AutoConfig")
threads = [threading.Thread(target=work, args=(code,)) for code in codes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
assert not any(thread.is_alive() for thread in threads), "deadlock"
assert not errors, errors
""",
    "after a failure of transformers": """
import bayesian_transformer
class Failing:
    def find_spec(self, name, path=None, target=None):
        if name == "transformers.models.auto.auto_factory":
            raise ImportError("not today")
failing = Failing()
sys.meta_path.insert(0, failing)
try:
    from transformers import AutoModelForCausalLM
except (ImportError, RuntimeError) as error:
    assert "not today" in f"{error} {error.__cause__}", repr(error)
else:
    raise AssertionError("the import did not fail")
sys.meta_path.remove(failing)
""",
    "transformers never": """
import bayesian_transformer, bayesian_transformer.uncertainty
assert not any(name.partition(".")[0] == "transformers" for name in sys.modules)
""",
}
_ROUND = """
import json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
import torch._dynamo, huggingface_hub, accelerate, sklearn.metrics
assert not any(name.partition(".")[0] in ("transformers", "bayesian_transformer") for name in sys.modules)
TAIL = '''
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
for path in sys.argv[1:]:
    config = AutoConfig.from_pretrained(path)
    seen.append([config.model_type, len(AutoTokenizer.from_pretrained(path)),
                 type(AutoModelForCausalLM.from_config(config)).__name__])
'''
for name, code in json.loads(sys.stdin.read()).items():
    out, into = os.pipe()
    child = os.fork()
    if not child:
        seen = []
        try:
            exec(code + TAIL, {"sys": sys, "seen": seen})
        except BaseException:
            seen = traceback.format_exc()
        os.write(into, json.dumps(seen)[:60000].encode())
        os._exit(0)
    os.close(into)
    with open(out) as answer:
        print(json.dumps([name, answer.read()]), flush=True)
    os.waitpid(child, 0)
"""
SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"num_key_value_heads": 1, "vocab_size": 300}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """For each order what transformers made of a Llama and a Qwen2 TFB model, or a traceback."""
    folder = tmp_path_factory.mktemp("registered")
    paths = [str(save_model_without_weights(folder / kind, kind, **SMALL)) for kind in ("llama", "qwen2")]
    command = [sys.executable, "-P", "-c", _ROUND, *paths]
    run = subprocess.run(
        command, input=json.dumps(ORDERS), capture_output=True, text=True, timeout=550, cwd=folder, check=False
    )
    assert run.returncode == 0, run.stderr
    pairs = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    return {name: json.loads(answer) if answer else "the process ended" for name, answer in pairs}


@pytest.mark.parametrize("order", ORDERS)
def test_transformers_knows_the_models(outcomes: dict[str, object], order: str) -> None:
    expected = [["tfb_llama", 260, "TFBLlamaForCausalLM"], ["tfb_qwen2", 261, "TFBQwen2ForCausalLM"]]
    assert outcomes[order] == expected, str(outcomes[order])
