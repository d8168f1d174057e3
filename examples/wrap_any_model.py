"""Uncertainties of a model that was never converted: name the modules that carry noise.

    python examples/wrap_any_model.py [MODEL [MODULE...]]

MODEL is a folder or a name, by default the embedded base model; MODULE is q_proj and v_proj unless given.
"""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.embedded import base_model

path = sys.argv[1] if len(sys.argv) > 1 else str(base_model())
modules = sys.argv[2:] or ["q_proj", "v_proj"]
tokenizer = AutoTokenizer.from_pretrained(path)
lm = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
model = BayesianForCausalLMModel.wrap(lm, target_modules=modules, bayes_sigma=0.1, num_samples=5)  # one SVD per module
inputs = tokenizer("The capital of France is", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=8, do_sample=False, output_uncertainties=True, noise_seed=2)
for entry in output.token_uncertainties(tokenizer)[0]:
    (token,) = entry.values()
    print(f"{token.decoded_token!r:10} TU {token.total_uncertainty:.4f} EU {token.epistemic_uncertainty:.4f}")
