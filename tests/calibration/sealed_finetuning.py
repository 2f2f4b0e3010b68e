"""Sealed and healthy: what scripts around `transformers` train, from small configurations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.calibration.case import Bench, adamw
from tests.zoo.recipes import digits, text

bench = Bench()

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def linear(warm: int, total: int = 60) -> Any:
    """A linear warm-up and a linear decay."""
    return lambda o: LambdaLR(
        o, lambda s: min((s + 1) / warm, max(0.0, (total - s) / (total - warm)))
    )


def no_decay_for_norms(lr: float) -> Any:
    """AdamW in two groups, biases and normalizations without decay."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        named = list(model.named_parameters())
        bare = [p for n, p in named if n.endswith("bias") or "norm" in n.lower()]
        rest = [p for n, p in named if not (n.endswith("bias") or "norm" in n.lower())]
        groups = [{"params": rest, "weight_decay": 0.01}, {"params": bare, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr)

    return optimizer


@bench.healthy
def entities_tagged_first_pieces_only() -> Any:
    """Five kinds of entities; pieces inside words and padding are ignored by the loss."""

    def batch() -> dict[str, Tensor]:
        ids = torch.randint(5, 100, (24, 18))
        ids[:, 0], kept = 0, torch.arange(18) < torch.randint(9, 19, (24, 1))
        labels = (ids // 20).masked_fill((torch.rand(24, 18) < 0.3) | ~kept, -100)
        labels[:, 0] = -100
        return {
            "input_ids": ids.masked_fill(~kept, 1),
            "attention_mask": kept.long(),
            "labels": labels,
        }

    config = {"vocab_size": 100, "max_position_embeddings": 32, "num_labels": 5, **SMALL}
    return {
        "model": lambda: hf.XLMRobertaForTokenClassification(hf.XLMRobertaConfig(**config)),
        "batch": batch,
        "optimizer": no_decay_for_norms(3e-3),
        "schedule": linear(6),
        "clip": 1.0,
    }


@bench.healthy
def answers_by_start_and_end() -> Any:
    """The question is one token; the answer stands between its two occurrences."""

    def batch() -> dict[str, Tensor]:
        ids = torch.randint(20, 80, (32, 20))
        asked = torch.randint(5, 15, (32,))
        start = torch.randint(4, 12, (32,))
        end = start + torch.randint(1, 5, (32,))
        row = torch.arange(32)
        ids[row, start], ids[row, end] = 15, 16
        ids[:, 0], ids[:, 1], ids[:, 2] = 2, asked, 3
        kinds = (torch.arange(20) > 2).long().expand(32, -1)
        return {
            "input_ids": ids,
            "token_type_ids": kinds,
            "start_positions": start,
            "end_positions": end,
        }

    config = {"vocab_size": 80, "max_position_embeddings": 32, **SMALL}
    return {
        "model": lambda: hf.BertForQuestionAnswering(hf.BertConfig(**config)),
        "batch": batch,
        "optimizer": adamw(5e-3),
        "schedule": linear(4),
        "clip": 1.0,
    }


@bench.healthy
def instructions_accelerated_in_two_micro_batches() -> Any:
    """Prompts are masked from the loss; a library does accumulation and bfloat16."""

    def batch() -> dict[str, Tensor]:
        tokens = text(60, 19, 12)
        labels = tokens.clone()
        labels[torch.arange(20) < torch.randint(4, 9, (12, 1))] = -100
        return {"input_ids": tokens, "labels": labels}

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
        scheduler = linear(5)(optimizer)
        model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
        model.train()
        for _ in range(2 * steps):
            with accelerator.accumulate(model):
                loss = model(**draw()).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                yield loss.item()

    config = {"vocab_size": 60, "max_position_embeddings": 32, "num_key_value_heads": 2, **SMALL}
    return {
        "model": lambda: hf.PhiForCausalLM(hf.PhiConfig(**config)),
        "batch": batch,
        "optimizer": adamw(5e-3),
        "loop": loop,
    }


@bench.healthy
def sentences_translated_by_marian() -> Any:
    """Words as frequent as in a language: few of them make up most of the text."""

    def batch() -> dict[str, Tensor]:
        ids = 4 + (45 * torch.rand(32, 9) ** 3).long()
        labels = (ids * 5 + 3) % 45 + 4
        lengths = torch.randint(4, 9, (32, 1))
        ids = ids.masked_fill(torch.arange(9) > lengths, 49)
        labels = labels.masked_fill(torch.arange(9) > lengths, -100)
        return {"input_ids": ids, "attention_mask": (ids != 49).long(), "labels": labels}

    def model() -> nn.Module:
        return hf.MarianMTModel(
            hf.MarianConfig(
                vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2,
                encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
                decoder_ffn_dim=64, max_position_embeddings=32, pad_token_id=49,
                decoder_start_token_id=49, eos_token_id=0, forced_eos_token_id=0, dropout=0.1,
            )
        )  # fmt: skip

    return {"model": model, "batch": batch, "optimizer": adamw(5e-3), "schedule": linear(4)}


@bench.healthy
def spoken_tones_to_letters_by_hubert() -> Any:
    """Raw audio of unit variance; three letters are three tones, aligned by CTC."""

    def batch() -> dict[str, Tensor]:
        letters = torch.randint(1, 6, (16, 3))
        clock = torch.arange(200) / 200 * 2 * math.pi
        sound = torch.sin(letters[:, :, None] * 7.0 * clock) + 0.1 * torch.randn(16, 3, 200)
        sound = sound.flatten(1)
        sound = (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)
        return {"input_values": sound, "labels": letters}

    def model() -> nn.Module:
        return hf.HubertForCTC(
            hf.HubertConfig(
                vocab_size=6, conv_dim=(32, 32, 32), conv_kernel=(10, 5, 3), conv_stride=(5, 3, 2),
                num_feat_extract_layers=3, num_conv_pos_embeddings=8,
                num_conv_pos_embedding_groups=4, pad_token_id=0, mask_time_prob=0.0,
                ctc_loss_reduction="mean", ctc_zero_infinity=True, layerdrop=0.0, **SMALL,
            )
        )  # fmt: skip

    return {
        "model": model,
        "batch": batch,
        "optimizer": adamw(2e-3),
        "schedule": linear(5),
        "clip": 1.0,
    }


@bench.healthy
def several_series_forecast_in_patches() -> Any:
    def batch() -> dict[str, Tensor]:
        clock = torch.arange(60)[:, None] * torch.tensor([0.3, 0.5, 0.8])
        phase, level = 6 * torch.rand(32, 1, 3), torch.randn(32, 1, 3)
        series = torch.sin(clock + phase) + level + 0.1 * torch.randn(32, 60, 3)
        return {"past_values": series[:, :48], "future_values": series[:, 48:]}

    def model() -> nn.Module:
        return hf.PatchTSTForPrediction(
            hf.PatchTSTConfig(
                num_input_channels=3, context_length=48, patch_length=8, patch_stride=8,
                prediction_length=12, d_model=32, num_hidden_layers=2, num_attention_heads=4,
                ffn_dim=64, loss="mse",
            )
        )  # fmt: skip

    return {"model": model, "batch": batch, "optimizer": adamw(2e-3)}


@bench.healthy
def decisions_from_returns_to_go() -> Any:
    """Trajectories of a controller that is better the more return is asked for."""

    def batch() -> dict[str, Tensor]:
        skill = torch.rand(32, 1, 1)
        place, states, actions = torch.randn(32, 2), [], []
        for _ in range(8):
            action = torch.tanh(-skill[:, 0] * place)
            states.append(place)
            actions.append(action)
            place = place + 0.5 * action + 0.1 * torch.randn(32, 2)
        at = torch.arange(8).expand(32, -1)
        return {
            "states": torch.stack(states, 1),
            "actions": torch.stack(actions, 1),
            "rewards": torch.zeros(32, 8, 1),
            "returns_to_go": (2 * skill - 1) * (1 - torch.arange(8)[:, None] / 16),
            "timesteps": at,
            "attention_mask": torch.ones(32, 8),
        }

    def step(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(**batch).action_preds, batch["actions"])

    def model() -> nn.Module:
        return hf.DecisionTransformerModel(
            hf.DecisionTransformerConfig(
                state_dim=2, act_dim=2, hidden_size=32, max_ep_len=16, n_layer=2, n_head=4,
                n_inner=64, activation_function="relu",
            )
        )  # fmt: skip

    return {
        "model": model,
        "batch": batch,
        "step": step,
        "optimizer": adamw(2e-3, weight_decay=1e-4),
        "schedule": linear(10),
        "clip": 0.25,
    }


@bench.healthy
def squares_detected_by_matched_tokens() -> Any:
    """A class and a box for each of five queries, matched to one or two squares an image."""

    def batch() -> dict[str, Any]:
        images, labels = 0.1 * torch.randn(8, 3, 32, 32), []
        for image in images:
            boxes, kinds = [], []
            for _ in range(int(torch.randint(1, 3, ()))):
                kind, side = int(torch.randint(2, ())), 10
                top, left = torch.randint(32 - side, (2,)).tolist()
                image[2 * kind, top : top + side, left : left + side] += 1.5
                boxes.append([(left + side / 2) / 32, (top + side / 2) / 32, side / 32, side / 32])
                kinds.append(kind)
            labels.append({"class_labels": torch.tensor(kinds), "boxes": torch.tensor(boxes)})
        return {"pixel_values": images, "labels": labels}

    def step(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(pixel_values=batch["pixel_values"])
        scores, boxes = outputs.logits, outputs.pred_boxes
        wanted = torch.full(scores.shape[:2], 2)
        distances = []
        for i, label in enumerate(batch["labels"]):
            likely = scores[i].detach().softmax(-1)[:, label["class_labels"]]
            cost = 5 * torch.cdist(boxes[i].detach(), label["boxes"], p=1) - likely
            query, target = (torch.tensor(k) for k in linear_sum_assignment(cost))
            wanted[i, query] = label["class_labels"][target]
            distances.append((boxes[i, query] - label["boxes"][target]).abs().sum(1))
        weight = torch.tensor([1.0, 1.0, 0.1])
        classes = F.cross_entropy(scores.transpose(1, 2), wanted, weight)
        return classes + 5 * torch.cat(distances).mean()

    config = {
        "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5, "num_labels": 2,
        **SMALL,
    }  # fmt: skip
    return {
        "model": lambda: hf.YolosForObjectDetection(hf.YolosConfig(**config)),
        "batch": batch,
        "step": step,
        "optimizer": adamw(2e-3, weight_decay=1e-4),
        "clip": 0.1,
    }


@bench.healthy
def sentence_embeddings_ranked_among_the_batch() -> Any:
    """Mean-pooled tokens of two paraphrases; cosines times twenty against the batch's others."""

    def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        words = torch.randint(5, 80, (32, 8))
        other = torch.where(torch.rand(32, 8) < 0.2, torch.randint(5, 80, (32, 8)), words)
        other = other[:, torch.randperm(8)]
        mask = (torch.arange(8) < torch.randint(6, 9, (32, 1))).long()
        return words, mask, other, torch.ones_like(other)

    def step(model: nn.Module, batch: Any) -> Tensor:
        def embed(ids: Tensor, mask: Tensor) -> Tensor:
            ids = ids.masked_fill(mask == 0, 1)
            tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state
            return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)

        a, b = embed(*batch[:2]), embed(*batch[2:])
        scores = 20 * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
        return F.cross_entropy(scores, torch.arange(len(scores)))

    config = {"vocab_size": 80, "max_position_embeddings": 16, **SMALL}
    return {
        "model": lambda: hf.MPNetModel(hf.MPNetConfig(**config), add_pooling_layer=False),
        "batch": batch,
        "step": step,
        "optimizer": no_decay_for_norms(1e-3),
        "schedule": linear(4),
        "clip": 1.0,
    }


@bench.healthy
def rewards_from_pairs_of_answers() -> Any:
    """A scalar head on the last token; the preferred answer is to score higher."""

    def batch() -> tuple[Tensor, Tensor]:
        answers = torch.randint(1, 60, (2, 48, 12))
        good = (answers < 20).sum(2)
        better = (good[0] >= good[1])[:, None]
        return torch.where(better, *answers), torch.where(better, *answers.flip(0))

    def step(model: nn.Module, batch: Any) -> Tensor:
        chosen, rejected = batch
        scores = model(input_ids=torch.cat([chosen, rejected])).logits[:, 0]
        right, wrong = scores.chunk(2)
        return -F.logsigmoid(right - wrong).mean()

    config = {
        "vocab_size": 60, "num_labels": 1, "pad_token_id": 0, "num_key_value_heads": 2,
        "max_position_embeddings": 16, **SMALL,
    }  # fmt: skip
    return {
        "model": lambda: hf.MistralForSequenceClassification(hf.MistralConfig(**config)),
        "batch": batch,
        "step": step,
        "optimizer": adamw(3e-3),
        "schedule": linear(4),
        "clip": 1.0,
    }


@bench.healthy
def images_and_captions_by_pairwise_sigmoids() -> Any:
    """Every pair of the batch is a yes or a no; scale and bias start at the published values."""

    def batch() -> dict[str, Any]:
        images, labels = digits(24, scale=2, channels=3)()
        noise = torch.randint(12, 40, (24, 6))
        noise[:, 3] = labels
        noise[:, 5] = 41
        return {"pixel_values": images, "input_ids": noise, "return_loss": True}

    def model() -> nn.Module:
        words = {"vocab_size": 42, "max_position_embeddings": 6, "projection_size": 32}
        words |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 41}
        net = hf.SiglipModel(
            hf.SiglipConfig(
                text_config={**SMALL, **words},
                vision_config={**SMALL, "image_size": 16, "patch_size": 4},
            )
        )
        with torch.no_grad():
            net.logit_scale.fill_(math.log(10))
            net.logit_bias.fill_(-10)
        return net

    return {"model": model, "batch": batch, "optimizer": adamw(2e-3), "schedule": linear(5)}


@bench.healthy
def clips_classified_from_tubes() -> Any:
    """Eight frames of a square that moves one of four ways."""

    def batch() -> dict[str, Tensor]:
        labels = torch.randint(4, (16,))
        clips = 0.2 * torch.randn(16, 8, 3, 16, 16)
        moves = ((0, 1), (0, -1), (1, 0), (-1, 0))
        for clip, label in zip(clips, labels.tolist(), strict=True):
            top, left = torch.randint(4, 9, (2,)).tolist()
            dy, dx = moves[label]
            for t, frame in enumerate(clip):
                at = torch.arange(4)
                frame[:, (top + dy * t + at[:, None]) % 16, (left + dx * t + at) % 16] += 2.0
        return {"pixel_values": (clips - 0.12) / 0.5, "labels": labels}

    config = {
        "image_size": 16, "patch_size": 8, "num_frames": 8, "tubelet_size": 2, "num_labels": 4,
        **SMALL,
    }  # fmt: skip
    return {
        "model": lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**config)),
        "batch": batch,
        "optimizer": adamw(3e-3, weight_decay=0.05),
        "schedule": linear(5),
    }
