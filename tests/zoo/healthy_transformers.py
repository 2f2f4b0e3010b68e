"""Healthy trainings of the architectures of the `transformers` library, small, from scratch.

The configurations keep each architecture's structure and its own initialization; widths
and depths are cut so that a check takes seconds. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.recipes import Zoo, adamw, digits, text, waves

zoo = Zoo()
VOCABULARY = 60


def causal_batch() -> dict[str, Tensor]:
    tokens = text(VOCABULARY, 15, 8)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}


def classified_batch() -> dict[str, Tensor]:
    tokens = torch.randint(5, VOCABULARY, (16, 12))
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "labels": (tokens < 10).any(dim=1).long(),
    }


def masked_batch() -> dict[str, Tensor]:
    tokens = text(VOCABULARY - 5, 15, 16) + 5
    hidden = torch.rand(tokens.shape) < 0.15
    hidden[0, 0] = True
    return {
        "input_ids": tokens.masked_fill(hidden, 4),
        "attention_mask": torch.ones_like(tokens),
        "labels": tokens.masked_fill(~hidden, -100),
    }


def image_batch(side: int = 32) -> Callable[[], dict[str, Tensor]]:
    def batch() -> dict[str, Tensor]:
        images, labels = digits(16, side // 8, 3)()
        return {"pixel_values": images, "labels": labels}

    return batch


def gpt2() -> nn.Module:
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=48, n_layer=3, n_head=4,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


@zoo
def gpt2_language_model() -> Any:
    return {"model": gpt2, "batch": causal_batch, "optimizer": adamw(3e-3)}


@zoo(slow=True)
def gpt2_synthesized() -> Any:
    return {"model": gpt2}


def bert_config(**options: Any) -> Any:
    return hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=64, **options,
    )  # fmt: skip


@zoo(slow=True)
def bert_masked_language_model() -> Any:
    return {
        "model": lambda: hf.BertForMaskedLM(bert_config()),
        "batch": masked_batch,
        "optimizer": adamw(1e-3),
    }


@zoo
def bert_sequence_classification() -> Any:
    return {
        "model": lambda: hf.BertForSequenceClassification(bert_config(num_labels=2)),
        "batch": classified_batch,
        "optimizer": adamw(1e-3),
    }


@zoo(slow=True)
def bert_synthesized() -> Any:
    return {"model": lambda: hf.BertForSequenceClassification(bert_config(num_labels=3))}


@zoo(slow=True)
def bert_bare_model_synthesized() -> Any:
    return {"model": lambda: hf.BertModel(bert_config())}


@zoo(slow=True)
def bert_frozen_encoder_head_only() -> Any:
    def model() -> nn.Module:
        net = hf.BertForTokenClassification(bert_config(num_labels=4))
        net.bert.embeddings.requires_grad_(False)
        return net

    def batch() -> dict[str, Tensor]:
        tokens = torch.randint(5, VOCABULARY, (16, 12))
        return {"input_ids": tokens, "labels": tokens % 4}

    return {
        "model": model,
        "batch": batch,
        "optimizer": lambda m: torch.optim.AdamW(
            [p for p in m.parameters() if p.requires_grad], lr=1e-3
        ),
    }


def llama_like(kind: str, **options: Any) -> nn.Module:
    config = getattr(hf, f"{kind}Config")(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **options,
    )  # fmt: skip
    return getattr(hf, f"{kind}ForCausalLM")(config)


@zoo(slow=True)
def llama_language_model() -> Any:
    return {
        "model": lambda: llama_like("Llama"),
        "batch": causal_batch,
        "optimizer": adamw(3e-3),
    }


@zoo(slow=True)
def llama_synthesized() -> Any:
    return {"model": lambda: llama_like("Llama")}


@zoo(slow=True)
def qwen2_language_model() -> Any:
    return {
        "model": lambda: llama_like("Qwen2"),
        "batch": causal_batch,
        "optimizer": adamw(3e-3),
    }


@zoo(slow=True)
def gemma_language_model() -> Any:
    return {
        "model": lambda: llama_like("Gemma", head_dim=12),
        "batch": causal_batch,
        "optimizer": adamw(3e-3),
    }


@zoo(slow=True)
def gemma_synthesized() -> Any:
    return {"model": lambda: llama_like("Gemma", head_dim=12)}


@zoo(slow=True)
def mixtral_mixture_of_experts() -> Any:
    def model() -> nn.Module:
        return llama_like(
            "Mixtral", num_local_experts=4, num_experts_per_tok=2, output_router_logits=True
        )

    return {"model": model, "batch": causal_batch, "optimizer": adamw(3e-3)}


def mamba() -> nn.Module:
    return hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)
    )


@zoo(slow=True)
def mamba_language_model() -> Any:
    def batch() -> dict[str, Tensor]:
        tokens = text(VOCABULARY, 11, 8)
        return {"input_ids": tokens, "labels": tokens}

    return {"model": mamba, "batch": batch, "optimizer": adamw(3e-3)}


@zoo(slow=True)
def mamba_synthesized() -> Any:
    return {"model": mamba}


def t5() -> nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=VOCABULARY, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


@zoo(slow=True)
def t5_sequence_to_sequence() -> Any:
    def batch() -> dict[str, Tensor]:
        source = text(VOCABULARY - 1, 7, 16) + 1
        return {"input_ids": source, "labels": source}

    return {"model": t5, "batch": batch, "optimizer": adamw(3e-3)}


@zoo(slow=True)
def t5_synthesized() -> Any:
    return {"model": t5}


def vit() -> nn.Module:
    return hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
            image_size=32, patch_size=8, num_labels=10,
        )
    )  # fmt: skip


@zoo(slow=True)
def vit_image_classification() -> Any:
    return {"model": vit, "batch": image_batch(), "optimizer": adamw(2e-3)}


@zoo
def vit_synthesized() -> Any:
    return {"model": vit}


def resnet() -> nn.Module:
    return hf.ResNetForImageClassification(
        hf.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic",
            num_labels=10,
        )
    )  # fmt: skip


@zoo(slow=True)
def resnet_image_classification() -> Any:
    return {"model": resnet, "batch": image_batch(), "optimizer": adamw(3e-3)}


@zoo(slow=True)
def resnet_synthesized() -> Any:
    return {"model": resnet}


@zoo(slow=True)
def convnext_image_classification() -> Any:
    def model() -> nn.Module:
        return hf.ConvNextForImageClassification(
            hf.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], num_labels=10)
        )

    return {"model": model, "batch": image_batch(), "optimizer": adamw(2e-3)}


@zoo(slow=True)
def swin_image_classification() -> Any:
    def model() -> nn.Module:
        return hf.SwinForImageClassification(
            hf.SwinConfig(
                image_size=32, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4],
                window_size=4, num_labels=10,
            )
        )  # fmt: skip

    return {"model": model, "batch": image_batch(), "optimizer": adamw(2e-3)}


@zoo(slow=True)
def distilbert_classification() -> Any:
    def model() -> nn.Module:
        return hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(
                vocab_size=VOCABULARY, dim=48, n_layers=3, n_heads=4, hidden_dim=96,
                max_position_embeddings=64, num_labels=2,
            )
        )  # fmt: skip

    return {"model": model, "batch": classified_batch, "optimizer": adamw(1e-3)}


def albert() -> nn.Module:
    return hf.AlbertForMaskedLM(
        hf.AlbertConfig(
            vocab_size=VOCABULARY, embedding_size=16, hidden_size=48, num_hidden_layers=4,
            num_attention_heads=4, intermediate_size=96, max_position_embeddings=64,
        )
    )  # fmt: skip


@zoo(slow=True)
def albert_shared_layers() -> Any:
    return {"model": albert, "batch": masked_batch, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def albert_synthesized() -> Any:
    return {"model": albert}


@zoo(slow=True)
def deberta_classification() -> Any:
    def model() -> nn.Module:
        return hf.DebertaV2ForSequenceClassification(
            hf.DebertaV2Config(
                vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=96, max_position_embeddings=64, relative_attention=True,
                pos_att_type=["p2c", "c2p"], position_buckets=16, num_labels=2,
                pooler_hidden_size=48,
            )
        )  # fmt: skip

    return {"model": model, "batch": classified_batch, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def electra_discriminator() -> Any:
    def model() -> nn.Module:
        return hf.ElectraForPreTraining(
            hf.ElectraConfig(
                vocab_size=VOCABULARY, embedding_size=24, hidden_size=48, num_hidden_layers=2,
                num_attention_heads=4, intermediate_size=96, max_position_embeddings=64,
            )
        )  # fmt: skip

    def batch() -> dict[str, Tensor]:
        tokens = text(VOCABULARY, 15, 16)
        swapped = torch.rand(tokens.shape) < 0.2
        other = torch.randint_like(tokens, VOCABULARY)
        return {"input_ids": torch.where(swapped, other, tokens), "labels": swapped.long()}

    return {"model": model, "batch": batch, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def whisper_speech_to_text() -> Any:
    def model() -> nn.Module:
        return hf.WhisperForConditionalGeneration(
            hf.WhisperConfig(
                vocab_size=VOCABULARY, num_mel_bins=16, d_model=48, encoder_layers=2,
                decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                encoder_ffn_dim=96, decoder_ffn_dim=96, max_source_positions=24,
                max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
            )
        )  # fmt: skip

    def batch() -> dict[str, Tensor]:
        tokens = text(VOCABULARY - 3, 7, 8) + 3
        return {"input_features": torch.randn(8, 16, 48), "labels": tokens}

    return {"model": model, "batch": batch, "optimizer": adamw(2e-3)}


def wav2vec2() -> nn.Module:
    return hf.Wav2Vec2ForSequenceClassification(
        hf.Wav2Vec2Config(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            conv_dim=(32, 32, 32), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3),
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_labels=4,
            mask_time_prob=0.0, classifier_proj_size=32,
        )
    )  # fmt: skip


@zoo(slow=True)
def wav2vec2_audio_classification() -> Any:
    def batch() -> dict[str, Tensor]:
        wave, labels = waves(16, 400)
        return {"input_values": wave.squeeze(-1), "labels": labels}

    return {"model": wav2vec2, "batch": batch, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def clip_image_and_text() -> Any:
    def model() -> nn.Module:
        shared = {
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }  # fmt: skip
        words = {**shared, "vocab_size": VOCABULARY, "max_position_embeddings": 16,
                 "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
        return hf.CLIPModel(
            hf.CLIPConfig(
                text_config=words,
                vision_config={**shared, "image_size": 32, "patch_size": 8},
                projection_dim=32,
            )
        )

    def step(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return net(**batch, return_loss=True).loss

    def batch() -> dict[str, Tensor]:
        images, labels = digits(16, 4, 3)()
        tokens = torch.stack([labels + 5, labels + 20, torch.ones_like(labels)], dim=1)
        return {"pixel_values": images, "input_ids": tokens}

    return {"model": model, "batch": batch, "training_step": step, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def segformer_semantic_segmentation() -> Any:
    def model() -> nn.Module:
        return hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                num_channels=1, depths=[1, 1], hidden_sizes=[16, 32], num_encoder_blocks=2,
                sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2],
                mlp_ratios=[2, 2], decoder_hidden_size=32, num_labels=2,
            )
        )  # fmt: skip

    def batch() -> dict[str, Tensor]:
        from tests.zoo.recipes import blobs

        images, masks = blobs(8, 32)
        return {"pixel_values": images, "labels": masks}

    return {"model": model, "batch": batch, "optimizer": adamw(2e-3)}


@zoo(slow=True)
def vit_masked_autoencoder() -> Any:
    def model() -> nn.Module:
        return hf.ViTMAEForPreTraining(
            hf.ViTMAEConfig(
                hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                image_size=32, patch_size=8, decoder_num_attention_heads=4,
                decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_intermediate_size=64,
            )
        )  # fmt: skip

    def batch() -> dict[str, Tensor]:
        return {"pixel_values": digits(16, 4, 3)()[0]}

    return {"model": model, "batch": batch, "optimizer": adamw(2e-3)}


@zoo(slow=True)
def bert_pooled_embeddings_own_head() -> Any:
    """A trunk of the library inside one's own module; the pooler stays unused."""

    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = hf.BertModel(bert_config())
            self.head = nn.Linear(48, 2)

        def forward(self, input_ids: Tensor) -> Tensor:
            hidden = self.encoder(input_ids=input_ids).last_hidden_state
            return self.head(hidden.mean(dim=1))

    def batch() -> tuple[Tensor, Tensor]:
        known = classified_batch()
        return known["input_ids"], known["labels"]

    return {
        "model": Embedder,
        "batch": batch,
        "loss_fn": F.cross_entropy,
        "optimizer": adamw(1e-3),
    }
