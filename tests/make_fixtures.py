#!/usr/bin/env python3
"""Golden data that the TG-LLaVA reference cannot give, computed with Hugging Face transformers.

    python tests/make_fixtures.py tests/fixtures

writes into the folder given (older files of the same names are replaced):

siglip-tiny/          a SigLIP checkpoint of random weights, its tokenizer and its picture preprocessing
    config.json, model.safetensors, preprocessor_config.json, tokenizer_config.json, spiece.model
    picture.png             a picture that is neither square nor of the tower's size
    golden.safetensors      pixel_values [2,3,28,28] (noise; picture.png preprocessed with Pillow)
                            vision.hidden_states.0..3 [2,4,32]: embeddings, then behind each block, no final norm
                            vision.last_hidden_state [2,4,32]: behind the final norm
                            vision.pooler_output [2,32]: the attention-pooling head (unused by TG-LLaVA)
                            text.input_ids [2,16], padded with </s>, no attention mask (as SigLIP is used)
                            text.last_hidden_state [2,16,24]: behind the final norm
                            text.pooler_output [2,24]: `head` of the last position
    tokenizer_golden.json   texts with their ids, whole and padded or cut to 16
rope-tiny/<variant>/  Llama and Qwen2 decoders, one folder for each kind of rotary embedding
    config.json             in the old or the new spelling, see `VARIANTS`
    model.safetensors       the same in all variants of one decoder
    golden.safetensors      input_ids [1,n], logits [1,n,vocab], generated [m] (greedy, with a KV cache; absent
                            for dynamic scaling past the limit, where cached keys keep the frequencies they were
                            made with and versions differ in when those change)
meta.json             in both folders: versions, seeds, and how far f32 is from f64

Needs Python 3.11, torch, transformers, safetensors, numpy, sentencepiece, protobuf and pillow; downloads nothing.
Weights come from numpy's RandomState, whose streams are frozen, so two runs give the same bytes and another
torch gives the same weights; other versions of torch may differ in the last bits of the results.
"""

import argparse
import contextlib
import io
import json
import math
import os
import platform
import shutil
import tempfile
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import PIL
import safetensors
import sentencepiece
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, SiglipConfig, SiglipModel, SiglipTokenizer

try:  # transformers 5 keeps the Pillow version under its own name
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil as PictureProcessor
except ImportError:
    from transformers import SiglipImageProcessor as PictureProcessor

SIGLIP_SEED = 11
POSITIONS = 16

# ---------------------------------------------------------------------------------------------------------
# Shared helpers


def randomise(model, seed):
    """Fills every parameter from its own stream, so that no norm is 1, no bias 0, and adding a parameter
    leaves the others as they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stream = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
            values = stream.standard_normal(tuple(parameter.shape))
            leaf = name.rsplit(".", 1)[-1]
            if parameter.dim() == 1 and leaf == "weight":
                values = 1.0 + 0.2 * values
            elif parameter.dim() <= 1:
                values = 0.2 * values
            elif "embed" in name or leaf == "probe":
                values = 0.5 * values
            else:
                values = 1.2 * values / math.sqrt(math.prod(parameter.shape[1:]))
            parameter.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
    return model.eval()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_rows(path, rows):
    """A JSON list with one row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_tensors(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def relative_difference(f32, f64):
    """Worst difference over the tensor's scale."""
    return ((f32.double() - f64).abs().max() / f64.abs().max()).item()


def versions():
    modules = [torch, transformers, safetensors, np, sentencepiece, PIL]
    return {"python": platform.python_version(), **{m.__name__: m.__version__ for m in modules}}


# ---------------------------------------------------------------------------------------------------------
# SigLIP

SENTENCES = """
what is in this picture
what is in the image
how many people are there in the photo
a photo of a cat on the mat
a photo of a dog in the park
what color is the car
the quick brown fox jumps over the lazy dog
describe the image in detail
is there a red box behind the blue ball
where does the woman stand and what does she hold
read the text on the sign
pack my box with five dozen liquor jugs
""".split("\n")

# Left of the colon the kind of case, right of it the text.
TEXTS = [
    ("plain", "What is in this picture?"),
    ("plain", "a photo of a cat"),
    ("case", "DESCRIBE the Image IN detail"),
    ("punctuation", "Hello, world! (It's a \"test\"; isn't it?)"),
    ("punctuation", "red-box / blue_ball: 100% [sic] {x} <y> `z` ~ ^ # @ & * + = |"),
    ("white space", "what   color\tis\n\nthe car"),
    ("white space", "trailing space "),
    ("unknown characters", "café 北京 7 € naïve"),
    ("normalisation table", "ｆｕｌｌ ＷＩＤＴＨ ﬁve oﬃce\u3000end"),
    ("long", "Describe the image in detail: how many people are there, what color is the car, where does she stand?"),
    ("long, one word", "x" * 40),
    ("punctuation before a space", "- a list entry"),
    ("leading space", "  leading space"),
    ("word-start mark", "a▁b"),
    ("punctuation alone", "?!"),
    ("empty", ""),
    ("special token in the text", "the </s> mark"),
]

# Texts of TEXTS whose ids the text tower reads: one shorter than the tower's positions, one cut.
TOWER_TEXTS = [1, 9]

# A small stand-in for NFKC: full-width letters, two ligatures, white space.
NORMALISATION = [([0xFF41 + i], [0x61 + i]) for i in range(26)] + [
    ([0xFB01], [0x66, 0x69]),
    ([0xFB03], [0x66, 0x66, 0x69]),
    ([0x3000], [0x20]),
    ([0x09], [0x20]),
    ([0x0A], [0x20]),
]


def train_spiece(vocab_size):
    """A unigram model with SigLIP's special ids: 0 <pad>, 1 </s>, 2 <unk>, no <s>."""
    table = "".join(
        "{}\t{}\n".format(*(" ".join(f"{c:X}" for c in side) for side in rule)) for rule in sorted(NORMALISATION)
    )
    model = io.BytesIO()
    # The model records the table's path, hence a fixed name relative to a temporary folder.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("normalisation.tsv").write_text(table, encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for line in SENTENCES if line]),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            normalization_rule_tsv="normalisation.tsv",
            num_threads=1,
            minloglevel=2,
        )
    return model.getvalue()


def make_picture(path):
    """37 x 23 pixels: ramps that cross, and a square with hard edges."""
    y, x = np.mgrid[0:23, 0:37]
    pixels = np.stack([x * 255 // 36, y * 255 // 22, (x * y * 7) % 256], axis=-1).astype(np.uint8)
    pixels[5:15, 10:20] = [250, 20, 60]
    Image.fromarray(pixels).save(path)


def siglip_config():
    vision = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": 28, "patch_size": 14,
    }
    text = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "vocab_size": 64, "max_position_embeddings": POSITIONS,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1,
    }
    config = SiglipConfig(vision_config=vision, text_config=text)
    config._attn_implementation = "eager"
    return config


def run_siglip(model, pixels, ids):
    """Every golden tensor of the two towers. The hidden states are caught at the blocks themselves, since
    versions of transformers differ in whether the last of `hidden_states` stands before the final norm."""
    states = []
    first = lambda output: output[0] if isinstance(output, tuple) else output
    tower = model.vision_model
    watched = [tower.embeddings, *tower.encoder.layers]
    hooks = [module.register_forward_hook(lambda _m, _i, o: states.append(first(o))) for module in watched]
    with torch.no_grad():
        vision = tower(pixel_values=pixels)
        text = model.text_model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    result = {f"vision.hidden_states.{i}": state for i, state in enumerate(states)}
    result |= {
        "vision.last_hidden_state": vision.last_hidden_state,
        "vision.pooler_output": vision.pooler_output,
        "text.last_hidden_state": text.last_hidden_state,
        "text.pooler_output": text.pooler_output,
    }
    last = model.text_model.head(text.last_hidden_state[:, -1])
    assert torch.equal(last, text.pooler_output), "the text tower no longer pools the last position"
    return result


def make_siglip(out):
    out.mkdir(parents=True, exist_ok=True)
    config = siglip_config()
    model = randomise(SiglipModel(config), SIGLIP_SEED)
    model.save_pretrained(out)

    (out / "spiece.model").write_bytes(train_spiece(config.text_config.vocab_size))
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": POSITIONS,
        "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "sp_model_kwargs": {},
    })
    tokenizer = SiglipTokenizer.from_pretrained(out)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 1, 2)
    assert tokenizer.vocab_size == config.text_config.vocab_size
    padded = {"padding": "max_length", "truncation": True, "max_length": POSITIONS}
    rows = [
        {"kind": kind, "text": text, "input_ids": tokenizer(text).input_ids,
         "padded_ids": tokenizer(text, **padded).input_ids}
        for kind, text in TEXTS
    ]
    write_rows(out / "tokenizer_golden.json", rows)

    processor = {
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": 28, "width": 28},
        "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }
    write_json(out / "preprocessor_config.json", processor)
    make_picture(out / "picture.png")
    picture = PictureProcessor(**{k: v for k, v in processor.items() if k != "image_processor_type"})(
        Image.open(out / "picture.png").convert("RGB"), return_tensors="pt"
    ).pixel_values
    noise = np.random.RandomState(SIGLIP_SEED).uniform(-1, 1, (1, 3, 28, 28)).astype(np.float32)
    pixels = torch.cat([torch.from_numpy(noise), picture.float()])
    ids = torch.tensor([rows[i]["padded_ids"] for i in TOWER_TEXTS])

    # What is written is what the saved files give.
    reloaded = SiglipModel.from_pretrained(out, attn_implementation="eager").eval()
    golden = run_siglip(reloaded, pixels, ids)
    exact = run_siglip(reloaded.double(), pixels.double(), ids)
    write_tensors(out / "golden.safetensors", {"pixel_values": pixels, "text.input_ids": ids, **golden})
    write_json(out / "meta.json", {
        "versions": versions(), "seed": SIGLIP_SEED, "attention": "eager", "dtype": "float32",
        "pixel_values": ["noise", "picture.png"], "text.input_ids": [TEXTS[i][1] for i in TOWER_TEXTS],
        "f32_vs_f64_over_scale": {name: relative_difference(golden[name], exact[name]) for name in golden},
    })


# ---------------------------------------------------------------------------------------------------------
# Rotary embeddings

NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 24,
    "rms_norm_eps": 1e-5, "attention_bias": True, "tie_word_embeddings": False, **NO_TOKENS,
}
QWEN2 = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "use_sliding_window": False, **NO_TOKENS,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

# name: decoder, seed of its weights, theta, scaling (kind and numbers), prompt length, greedy tokens, spelling
#   old:    rope_theta, and rope_scaling with `type`
#   middle: rope_theta, and rope_scaling with `rope_type` (as Llama 3.1 was published)
#   new:    as the installed transformers writes it (since version 5 all of it in rope_parameters)
VARIANTS = {
    "none": (LLAMA, 21, 1e4, None, 12, 12, "old"),
    "linear": (LLAMA, 21, 1e4, ("linear", {"factor": 2.0}), 28, 12, "old"),
    # Below the limit of 24 all the way, then past it.
    "dynamic-short": (LLAMA, 21, 1e4, ("dynamic", {"factor": 2.0}), 20, 4, "new"),
    "dynamic-long": (LLAMA, 21, 1e4, ("dynamic", {"factor": 2.0}), 40, 0, "old"),
    # With heads of 8, the four wavelengths are one interpolated and three divided.
    "llama3": (LLAMA, 21, 1e4, ("llama3", LLAMA3 | {"original_max_position_embeddings": 16}), 20, 12, "middle"),
    "head-dim": (LLAMA | {"head_dim": 16}, 24, 1e4, None, 12, 12, "new"),
    # With heads of 16, one wavelength is kept, one interpolated, six divided.
    "llama3-head-dim": (
        LLAMA | {"head_dim": 16, "max_position_embeddings": 256}, 24, 1e4,
        ("llama3", LLAMA3 | {"original_max_position_embeddings": 32}), 40, 12, "new",
    ),
    "qwen2-tied": (QWEN2, 23, 1e6, None, 16, 12, "old"),
}


def spell(config, theta, scaling, spelling):
    """config.json with the keys spelled as asked; the older spellings have no `head_dim` that follows from the
    width, and `torch_dtype`."""
    if spelling == "new":
        return config
    newer = {"rope_parameters", "dtype", "layer_types"}
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        newer.add("head_dim")
    config = {key: value for key, value in config.items() if key not in newer} | {"torch_dtype": config["dtype"]}
    config["rope_theta"] = theta
    key = "type" if spelling == "old" else "rope_type"
    config["rope_scaling"] = None if scaling is None else {key: scaling[0], **scaling[1]}
    return config


def greedy(model, ids, count):
    """`count` greedy tokens with a KV cache, and the smallest lead of a winner over the runner-up."""
    generated, lead, past, step = [], math.inf, None, ids
    with torch.no_grad():
        for _ in range(count):
            output = model(input_ids=step, past_key_values=past, use_cache=True)
            past = output.past_key_values
            best = output.logits[0, -1].topk(2)
            lead = min(lead, (best.values[0] - best.values[1]).item())
            step = best.indices[:1].view(1, 1)
            generated.append(best.indices[0].item())
    return generated, lead


def make_rope(out):
    notes = {}
    for name, (sizes, seed, theta, scaling, length, count, spelling) in VARIANTS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        parameters = {"rope_theta": theta, "rope_type": "default"}
        if scaling is not None:
            parameters |= {"rope_type": scaling[0], **scaling[1]}
        qwen2 = sizes is QWEN2
        config = (Qwen2Config if qwen2 else LlamaConfig)(**sizes, rope_parameters=parameters)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        randomise(model, seed).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        saved = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", spell(saved, theta, scaling, spelling))

        # What is written is what the saved files give, config.json as spelled.
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        ids = torch.from_numpy(np.random.RandomState(seed + length).randint(0, sizes["vocab_size"], (1, length)))
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits
        golden = {"input_ids": ids, "logits": logits}
        note = {"seed": seed, "spelling": spelling}
        if count:
            generated, note["smallest_lead"] = greedy(model, ids, count)
            assert note["smallest_lead"] > 1e-3, f"{name}: a near tie, choose another seed"
            golden["generated"] = torch.tensor(generated)
            whole = torch.cat([ids, golden["generated"][None, :-1]], dim=1)
            with torch.no_grad():
                uncached = model(input_ids=whole, use_cache=False).logits[0, length - 1 :].argmax(-1)
            assert uncached.tolist() == generated, f"{name}: cached and uncached generation differ"
        with torch.no_grad():
            exact = model.double()(input_ids=ids, use_cache=False).logits
        note["f32_vs_f64_over_scale"] = relative_difference(logits, exact)
        write_tensors(folder / "golden.safetensors", golden)
        notes[name] = note
    write_json(out / "meta.json", {
        "versions": versions(), "attention": "eager", "dtype": "float32", "variants": notes,
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder that receives siglip-tiny/ and rope-tiny/")
    out = parser.parse_args().out
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, make in (("siglip-tiny", make_siglip), ("rope-tiny", make_rope)):
        shutil.rmtree(out / name, ignore_errors=True)
        make(out / name)


if __name__ == "__main__":
    main()
