"""Captions to token rows and states, with CLIP's own tokenizer class and its own forward."""

import pytest
import torch
from shinymas_loha.loha.training.models import TextEncoder
from shinymas_loha.loha.training.objective.text_states import encode, token_rows
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LETTERS = [chr(code) for code in range(33, 127)]
TOKENS = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
BEGIN, END = len(TOKENS) - 2, len(TOKENS) - 1


@pytest.fixture(scope="module")
def tokenizer():
    """CLIP's tokenizer with letters for tokens."""
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(TOKENS)}, merges=[])


@pytest.fixture(scope="module")
def text(tokenizer):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(TOKENS), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
        bos_token_id=BEGIN, eos_token_id=END, pad_token_id=END)).eval()

    def tokenize(caption):
        return tokenizer(caption, add_special_tokens=False)["input_ids"]

    return TextEncoder(getattr(model, "text_model", model), 2, tokenize, BEGIN, END)


def kohya_ids(tokenizer, caption, max_length):
    """library/train_util.py, get_input_ids, for SD 1.x."""
    longest = max_length + 2
    ids = tokenizer(
        caption, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")["input_ids"].flatten()
    if max_length == 75:
        return ids[None]
    return torch.stack([
        torch.cat((ids[:1], ids[at:at + 75], ids[-1:])) for at in range(1, longest - 77 + 2, 75)])


def kohya_states(text, ids, clip_skip):
    states = text.model.final_layer_norm(text.model(ids, output_hidden_states=True).hidden_states[-clip_skip])
    if len(ids) == 1:
        return states
    whole = states.reshape(1, -1, states.shape[-1])
    parts = [whole[:, :1], *(whole[:, at:at + 75] for at in range(1, whole.shape[1], 77)), whole[:, -1:]]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("clip_skip", [1, 2, 4])
@pytest.mark.parametrize("max_length", [75, 150, 225])
@pytest.mark.parametrize("caption", ["", "girl, (smile:1.2)", "long hair, " * 8, "very long indeed, " * 40])
@torch.no_grad()
def test_states_equal_kohyas(tokenizer, text, caption, max_length, clip_skip):
    ids = kohya_ids(tokenizer, caption, max_length)
    assert token_rows(text.tokenize(caption), max_length, BEGIN, END) == ids.tolist()
    states = encode(text, [caption], max_length, clip_skip, torch.device("cpu"))
    assert states.shape == (1, max_length + 2, 32)
    torch.testing.assert_close(states, kohya_states(text, ids, clip_skip), rtol=1e-4, atol=1e-5)


def test_a_row_of_captions_is_the_captions_in_a_row(text):
    captions = ["one", "two " * 60, ""]
    together = encode(text, captions, 150, 2, torch.device("cpu"))
    for states, caption in zip(together, captions, strict=True):
        torch.testing.assert_close(states, encode(text, [caption], 150, 2, torch.device("cpu"))[0])


def test_emphasis_is_not_parsed(tokenizer, text):
    ids = text.tokenize("(a:1.2)")
    assert tokenizer.decode(ids).replace(" ", "") == "(a:1.2)"
