"""Answers from vLLM with the uncertainties of every token.

    python examples/vllm_generate.py [MODEL]

MODEL is a folder, by default that of the embedded model: a plain checkpoint or a TFB model.
"""

import sys

from vllm import LLM, SamplingParams

from bayesian_transformer import tfb
from bayesian_transformer.embedded import base_model

if __name__ == "__main__":  # vLLM starts processes that import this file
    model = sys.argv[1] if sys.argv[1:] else base_model()
    llm = LLM(str(model), hf_overrides=tfb(bayes_sigma=0.1, num_samples=5))
    questions = ["What is 6 + 5?", "What is 7 * 6?"]
    chats = [[{"role": "user", "content": question}] for question in questions]
    params = [SamplingParams(temperature=0.0, max_tokens=32, seed=seed) for seed in (1, 2)]
    for output in llm.chat(chats, params):
        completion = output.outputs[0]
        print(repr(completion.text))  # as it is: a model may write what a terminal would obey
        for token_id, entry in zip(completion.token_ids, completion.uncertainties, strict=True):
            token = entry[token_id]
            print(f"{token.decoded_token!r:10} TU {token.total_uncertainty:.4f} EU {token.epistemic_uncertainty:.4f}")
