"""The two sides of the benchmark of a step hold the same student."""

from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    import torch.nn.functional as F

    from benchmarks.open_clip_step import OpenClip, tokenizers
    from benchmarks.towers import CAPTION_WORDS, Shape, clip_from_open_clip, draw_captions
    from students.encoder import embed_images, embed_texts, tokenize


def shape() -> Shape:
    return Shape(
        image_layers=2,
        image_width=64,
        text_layers=3,
        text_width=128,
        image_size=32,
        patch_size=8,
        embedding=48,
    )


def test_captions_differ_and_have_all_lengths() -> None:
    captions = draw_captions(500, seed=3)
    assert len(set(captions)) == 500
    assert {len(text.split()) for text in captions} == set(CAPTION_WORDS)
    assert captions == draw_captions(500, seed=3)


# open_clip takes seconds to import.
@pytest.mark.slow
def test_a_converted_model_embeds_as_open_clips_does(tmp_path: Path) -> None:
    theirs = OpenClip(tmp_path, {"student": shape(), "teacher": shape()}).student.eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            # Biases and norms that begin with zeros and ones would hide a mistake.
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = clip_from_open_clip(theirs, shape())
    tokenizer, their_tokens = tokenizers()
    texts = ["a", "two dogs run on the beach", *draw_captions(13, seed=0), "dog " * 200]
    tokens = tokenize(tokenizer, texts, context_length=77, padding="longest")
    pixels = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        text = F.normalize(theirs.encode_text(their_tokens(texts)), dim=-1)
        image = F.normalize(theirs.encode_image(pixels), dim=-1)
        assert torch.allclose(embed_texts(ours, tokens), text, atol=1e-5)
        for some in (texts[:1], texts[1:4]):
            fewer = tokenize(tokenizer, some, context_length=77, padding="longest")
            first = texts.index(some[0])
            expected = text[first : first + len(some)]
            assert torch.allclose(embed_texts(ours, fewer), expected, atol=1e-5)
        assert torch.allclose(embed_images(ours, pixels), image, atol=1e-5)
    # Not everything alike.
    assert float((text @ text.T).min()) < 0.9
    assert float((image @ image.T).min()) < 0.999


@pytest.mark.slow
def test_both_tokenizers_agree() -> None:
    ours, theirs = tokenizers()
    texts = draw_captions(100, seed=1)
    tokens = tokenize(ours, texts, context_length=77, padding="longest")
    mask = tokens["attention_mask"].bool()
    assert torch.equal(tokens["input_ids"][mask], theirs(texts)[:, : mask.shape[1]][mask])
    assert torch.equal(mask.sum(dim=1), (theirs(texts) != 0).sum(dim=1))
    assert int(mask.sum(dim=1).min()) >= 8
    assert int(mask.sum(dim=1).max()) <= 20
