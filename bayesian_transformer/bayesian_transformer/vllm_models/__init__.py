"""Published names: tfb_llama.py has the TFB models of transformers, Qwen2's too, and tfb_*_vllm.py those of vLLM."""
