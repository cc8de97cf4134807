#!/usr/bin/env python3
"""Golden beam searches, computed with Hugging Face transformers.

    python tests/make_beams.py tests/fixtures

reads the decoders of models/*-tiny in the folder given and writes beams.json into it: prompts as ids, how they were searched
(num_beams, length_penalty, early_stopping as `false`, `true` or "never", repetition_penalty, eos_token_ids, max_new_tokens), and
the best answers with their scores.

Only searches are kept that come out the same in float32 and float64 and with noise on the scores that is far above rounding.

Needs Python 3.11, torch, transformers, safetensors and numpy; downloads nothing.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file

CASES = ["vicuna-tiny", "llama3-tiny", "qwen2-tiny"]
NOISE = 2e-5


class Noise(transformers.LogitsProcessor):
    """What another order of sums could do to the scores, and more."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        noise = torch.rand(scores.shape, generator=self.random, dtype=torch.float64) - 0.5
        return scores + (2 * NOISE * noise).to(scores.dtype)


def decoder(folder):
    """The plain decoder in a LLaVA checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    qwen = "qwen" in config["model_type"]
    kinds = (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    kinds = kinds if qwen else (transformers.LlamaConfig, transformers.LlamaForCausalLM)
    config = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    model = kinds[1](kinds[0].from_dict({**config, "dtype": "float32", "torch_dtype": "float32"}))
    names = set(model.state_dict())
    weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if key in names}
    missing = names - set(weights)
    assert missing <= ({"lm_head.weight"} if config["tie_word_embeddings"] else set()), missing
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model.eval()


def search(model, prompt, settings, noise=None):
    # As LLaVA asks: the prompt is known by its vectors alone, so that a repetition penalty sees the answer.
    vectors = model.get_input_embeddings()(torch.tensor([prompt]))
    generation = transformers.GenerationConfig(
        do_sample=False, pad_token_id=0, bos_token_id=None, return_dict_in_generate=True, output_scores=True,
        num_beams=settings["num_beams"], num_return_sequences=settings["num_beams"],
        length_penalty=settings["length_penalty"], early_stopping=settings["early_stopping"],
        repetition_penalty=settings["repetition_penalty"], eos_token_id=settings["eos_token_ids"] or None,
        max_new_tokens=settings["max_new_tokens"],
    )
    # What a caller could not set is not to come from the checkpoint either.
    model.generation_config = transformers.GenerationConfig()
    processors = transformers.LogitsProcessorList([] if noise is None else [Noise(noise)])
    with torch.no_grad():
        out = model.generate(
            inputs_embeds=vectors, attention_mask=torch.ones(vectors.shape[:2], dtype=torch.long),
            generation_config=generation, logits_processor=processors,
        )
    ends = set(settings["eos_token_ids"])
    answers = []
    for sequence, score in zip(out.sequences.tolist(), out.sequences_scores.tolist()):
        tokens = []
        for token in sequence:
            tokens.append(token)
            if token in ends:
                break
        answers.append({"ids": tokens, "score": score})
    return answers


def main():
    folder = Path(sys.argv[1])
    random = numpy.random.RandomState(5)
    kept = []
    for case in CASES:
        model = decoder(folder / "models" / case)
        vocab = model.config.vocab_size
        exact = decoder(folder / "models" / case).double()
        found = 0
        while found < 10:
            beams = int(random.choice([2, 3, 5]))
            prompt = [int(id) for id in random.randint(3, vocab, random.randint(2, 12))]
            settings = {
                "num_beams": beams,
                "length_penalty": float(random.choice([1.0, 1.0, 0.0, 2.0, -0.5])),
                "early_stopping": [False, False, True, "never"][random.randint(4)],
                "repetition_penalty": float(random.choice([1.0, 1.0, 1.0, 1.3])),
                "eos_token_ids": [],
                "max_new_tokens": int(random.randint(2, 14)),
            }
            # Some tokens on the way become ends.
            used = sorted({id for answer in search(model, prompt, settings) for id in answer["ids"]})
            ends = random.choice(used, min(len(used), random.randint(0, 4)), replace=False)
            settings["eos_token_ids"] = sorted(int(id) for id in ends)
            answers = search(model, prompt, settings)
            ids = [answer["ids"] for answer in answers]
            others = [search(exact, prompt, settings)] + [search(model, prompt, settings, seed) for seed in range(6)]
            if any([answer["ids"] for answer in other] != ids for other in others):
                continue
            found += 1
            kept.append({"model": case, "prompt_ids": prompt, **settings, "answers": answers})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": numpy.__version__}
    lines = ",\n".join("  " + json.dumps(search) for search in kept)
    text = f'{{\n "versions": {json.dumps(versions)},\n "searches": [\n{lines}\n ]\n}}\n'
    (folder / "beams.json").write_text(text)
    ended = sum(answer["ids"][-1] in search["eos_token_ids"] for search in kept for answer in search["answers"])
    print(f"{len(kept)} searches, {ended} answers that end by themselves")


if __name__ == "__main__":
    main()
