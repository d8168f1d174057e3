"""An answer from transformers with the uncertainties of every token.

    python examples/transformers_generate.py [MODEL]

MODEL is a folder, by default that of the embedded model; a plain checkpoint is converted on the first run.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.embedded import tfb_model  # importing the package registers its models with transformers

path = tfb_model(*map(Path, sys.argv[1:]))
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", num_samples=5)
chat = [{"role": "user", "content": "What is 7 * 6?"}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=32, do_sample=False, output_uncertainties=True, noise_seed=2)
print(output.uncertainties.epistemic)  # float32 [batch, new tokens]; so are the other seven quantities
for entry in output.token_uncertainties(tokenizer)[0]:  # one {token id: Uncertainty} per token, as from vLLM
    (token,) = entry.values()
    print(f"{token.decoded_token!r:10} TU {token.total_uncertainty:.4f} EU {token.epistemic_uncertainty:.4f}")
