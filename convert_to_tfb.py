"""Convert a base model to a TFB model: its weights plus the basis vectors that carry the noise.

python convert_to_tfb.py --model-path Qwen2.5-3B-Instruct --output-path TFB-Qwen2.5-3B-Instruct --architecture qwen2
"""

from bayesian_transformer.convert import main

if __name__ == "__main__":
    main()
