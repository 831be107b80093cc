"""Two tiny models with random weights, a Mistral and a Llama, made here: `python -m tests.vllm.models FOLDER`.

They know nothing, but they keep the real ones' rules: tokens, chat templates, what ends a turn. Their sampling is
steered a little, so that tests end soon and surely: `mistral` never ends its turn by itself, `llama` does after some
30 tokens, both write ASCII, and neither pads JSON. Two variants keep other rules with the same weights.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.vllm.templates import LLAMA, MISTRAL, MISTRAL_WITHOUT_SYSTEM

LEADS = Path(__file__).resolve().parents[2] / "node-adapter/examples/leads.jsonl"
# What the model cards say.
CONTEXT_TOKENS = 8192
VOCABULARY = 768
LAYERS, HIDDEN, HEADS, KV_HEADS, MLP = 2, 64, 2, 1, 128
HEAD = 32
SEED = 20
SPREAD = 0.02
# A token's number in the steered place, from "as good as never" to "about every thirtieth at a temperature of 0.2".
NEVER, AT_TIMES, OFTEN = -2.0, 0.15, 0.2
# As a byte-level tokenizer spells them; so it does other bytes that are not a printable ASCII character.
SPACE, NEWLINE = "\u0120", "\u010a"


@dataclass(frozen=True)
class TinyModel:
    """What sets one model apart. `ends`: the tokens of generation_config that end an answer; `turn_end`: the one the
    template writes after an assistant's turn; `ends_turns`: whether the weights emit that one."""

    name: str
    architecture: str
    template: str
    specials: tuple[str, ...]
    bos: str
    eos: str
    turn_end: str
    ends: tuple[str, ...]
    ends_turns: bool


def _mistral(name: str, template: str) -> TinyModel:
    tools = ("[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
    specials = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", *tools)
    return TinyModel(name, "mistral", template, specials, "<s>", "</s>", "</s>", ("</s>",), ends_turns=False)


def _llama(name: str, *ends: str) -> TinyModel:
    headers = ("<|start_header_id|>", "<|end_header_id|>")
    specials = ("<|begin_of_text|>", "<|end_of_text|>", *headers, "<|eot_id|>")
    bos, eos, turn_end = specials[0], specials[1], specials[-1]
    return TinyModel(name, "llama", LLAMA, specials, bos, eos, turn_end, ends, ends_turns=True)


MODELS = (
    _mistral("mistral", MISTRAL),
    _mistral("mistral-without-system", MISTRAL_WITHOUT_SYSTEM),
    _llama("llama", "<|end_of_text|>", "<|eot_id|>"),
    _llama("llama-one-end", "<|end_of_text|>"),
)


def make(model: TinyModel, folder: Path) -> None:
    """Writes one model as a Hugging Face repository has it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(model)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    end_ids = [ids[token] for token in model.ends]
    shared = {"bos_token_id": ids[model.bos], "eos_token_id": ids[model.eos]}
    write(folder / "config.json", {**shape(model.architecture, len(ids)), **shared})
    write(
        folder / "generation_config.json",
        {**shared, "eos_token_id": end_ids if len(end_ids) > 1 else end_ids[0]},
    )
    write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": model.bos,
            "eos_token": model.eos,
            "model_max_length": CONTEXT_TOKENS,
            "clean_up_tokenization_spaces": False,
            "chat_template": model.template,
        },
    )
    save_file(weights(model, tokenizer), str(folder / "model.safetensors"), metadata={"format": "pt"})


def train_tokenizer(model: TinyModel) -> Tokenizer:
    """Byte-level pairs, so that any text has tokens; learnt from the demo's leads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in model.specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LEADS.read_text(encoding="utf-8").splitlines(), trainer)
    bos = tokenizer.token_to_id(model.bos)
    # As the real ones do: a text that has its bos already gets a second one, unless it is asked not to.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{model.bos} $A", special_tokens=[(model.bos, bos)]
    )
    return tokenizer


def shape(architecture: str, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": [f"{architecture.capitalize()}ForCausalLM"],
        "model_type": architecture,
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def weights(model: TinyModel, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Small random numbers, but for one direction: every state has a constant part there, so that a token's number
    in that place of the last layer makes it likelier or rarer whatever came before."""
    random = torch.Generator().manual_seed(SEED)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return SPREAD * torch.randn(rows, columns, generator=random)

    ids = tokenizer.get_vocab()
    tensors = {
        "model.embed_tokens.weight": matrix(len(ids), HIDDEN),
        "lm_head.weight": matrix(len(ids), HIDDEN),
    }
    tensors["model.norm.weight"] = torch.ones(HIDDEN)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{name}.post_attention_layernorm.weight": torch.ones(HIDDEN),
            f"{name}.self_attn.q_proj.weight": matrix(HEADS * HEAD, HIDDEN),
            f"{name}.self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{name}.self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{name}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD),
            f"{name}.mlp.gate_proj.weight": matrix(MLP, HIDDEN),
            f"{name}.mlp.up_proj.weight": matrix(MLP, HIDDEN),
            f"{name}.mlp.down_proj.weight": matrix(HIDDEN, MLP),
        }
    steer(model, ids, tensors)
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}


def steer(model: TinyModel, ids: Mapping[str, int], tensors: Mapping[str, torch.Tensor]) -> None:
    """Sets the likelihoods in place: dimension 0 is the same in every state, dimension 1 marks the start of a turn, and
    no layer writes to them."""
    always, start = 0, 1
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[[always, start]] = 0.0
    embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    embedding[:, always] = 0.1
    embedding[:, start] = 0.0
    head[:, [always, start]] = 0.0
    embedding[[ids[token] for token in (*model.specials, NEWLINE)], start] = 0.1
    # No control characters, and no bytes that make no character together: a grammar counts those in its own way.
    rare = [
        number
        for token, number in ids.items()
        if not token.replace(SPACE, "").isascii() or set(token) == {SPACE}
    ]
    head[[*rare, *(ids[token] for token in model.specials)], always] = NEVER
    # The end of a string, so that JSON has one.
    head[ids['"'], always] = AT_TIMES
    if model.ends_turns:
        head[ids[model.turn_end], always] = OFTEN
        head[ids[model.turn_end], start] = NEVER


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for tiny in MODELS:
        make(tiny, Path(sys.argv[1]) / tiny.name)
