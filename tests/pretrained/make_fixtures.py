"""Writes the folders beside this file: random tiny models of each family as transformers saves them,
with the logits that it computes. Only needed to make them anew: pip install torch transformers."""

import json
import pathlib

import torch
from transformers import (
    GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
    Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).parent
SHAPE = dict(vocab_size=29, hidden_size=12, intermediate_size=16, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
TOKENS = [3, 17, 5, 28, 0, 11, 9, 22, 14, 7, 1, 26, 8, 19]

MODELS = {
    # Grouped key heads, Llama 3.1's frequencies (the context is short enough that some are slowed,
    # some are not and some are in between), bf16 in one file.
    "llama": (LlamaForCausalLM, LlamaConfig(
        **SHAPE, head_dim=8, rms_norm_eps=1e-5, rope_parameters=dict(
            rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=24)), torch.bfloat16, "5MB"),
    # The same class without an explicit head width, tied, with linear scaling, in fp16.
    "llama-tied": (LlamaForCausalLM, LlamaConfig(
        **{**SHAPE, "num_key_value_heads": 4, "hidden_size": 16}, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=2.5)),
        torch.float16, "5MB"),
    # A window longer than the text; several files.
    "mistral": (MistralForCausalLM, MistralConfig(
        **SHAPE, head_dim=4, sliding_window=32,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), torch.float32, "3KB"),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        **{**SHAPE, "hidden_size": 16}, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), torch.bfloat16, "5MB"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        **SHAPE, head_dim=6, rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
        torch.float32, "5KB"),
    # One key head for all, an embedding that is scaled, norms of 1 + weight.
    "gemma": (GemmaForCausalLM, GemmaConfig(
        **{**SHAPE, "num_key_value_heads": 1}, head_dim=6,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), torch.bfloat16, "5MB"),
}


def main():
    for number, (name, (kind, config, dtype, shard)) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        model = kind(config)
        for parameter_name, parameter in model.named_parameters():
            with torch.no_grad():
                # Far from what they start as, so that nothing agrees by being 0 or 1.
                parameter.normal_(1.0 if "norm" in parameter_name else 0.0, 0.3)
        model = model.to(dtype)
        model.save_pretrained(HERE / name, max_shard_size=shard)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
        with torch.no_grad():
            # As whoever opens the folder has it: .to(dtype) above also rounded the frequencies.
            again = kind.from_pretrained(HERE / name, dtype=torch.float32).double()
            logits = again(torch.tensor([TOKENS])).logits[0]
        rows = [[float(f"{x:.9g}") for x in row] for row in logits.tolist()]
        (HERE / name / "logits.json").write_text(
            json.dumps({"tokens": TOKENS, "logits": rows}) + "\n")


main()
