"""The recipe: every option of medtune, its type, its bounds, its one default and its one-line documentation.

Covered: the frozen schema; checks of one option against another. Not covered: reading YAML and overrides, error
messages and suggestions (`recipe_file`), and anything that needs torch, a tokenizer or the data (`check`).
The string under a field is its help and its entry in docs/recipe.md. Validation checks; it never edits.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from medtune.recipe_assistant import AssistantSection
from medtune.recipe_evaluate import EvaluateSection
from medtune.recipe_section import Section, Share
from medtune.recipe_sweep import SweepSection

Layout = Literal[
    "medquad_xml",
    "medquad_csv",
    "flashcards",
    "labelled_answers",
    "patient_doctor",
    "chat",
    "question_answer",
    "library",
    "text",
]


class ScratchModel(Section):
    """The shape of a model initialised from scratch (`model.base: scratch`): a small Llama with its own tokenizer."""

    layers: int = Field(4, ge=1, le=64)
    """Number of decoder layers."""
    width: int = Field(192, ge=16, le=8192)
    """Width of the residual stream; a multiple of 2 x heads."""
    heads: int = Field(6, ge=1)
    """Number of attention heads."""
    vocabulary: int = Field(4096, ge=300, le=262144)
    """Pieces of the byte-level BPE tokenizer that is trained on the training split."""

    @model_validator(mode="after")
    def _width_fits_heads(self) -> ScratchModel:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width ({self.width}) must be a multiple of 2 x heads ({2 * self.heads}): change one of them"
            )
        return self


class ModelSection(Section):
    """The base model, and how it is loaded."""

    base: str = Field(min_length=1)
    """Hub id, local folder, `starter` (the embedded demonstration model) or `scratch` (random weights)."""
    revision: str | None = None
    """Git revision on the Hub; null takes the newest and records its commit in the manifest."""
    quantization: Literal["none", "nf4"] = "none"
    """`nf4` loads the base in 4 bits (double quantisation, bf16 compute), on CUDA and on the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the frozen base; `auto` times this machine and takes what is really fast."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model lies; `auto` times what is there of CUDA, MPS and CPU and takes the fastest."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "documents"] = "auto"
    """Attention kernel; `auto` times the correct ones. `documents` is medtune's own for rows without padding."""
    chat_template: Literal["auto", "own", "dialogpt", "instruction", "plain"] = "auto"
    """Prompt format: the model's own template, turns joined by EOS, an instruction prefix (T5), Question/Answer."""
    system_prompt: str = ""
    """System turn put before every conversation that has none."""
    scratch: ScratchModel = ScratchModel()
    """Shape of the model when `model.base` is `scratch`."""


class Source(Section):
    """One data source: a file, folder or archive, `starter`, or a data set on the Hub."""

    layout: Layout
    """How the rows are laid out; `medtune data --layouts` lists them with their columns."""
    path: str = Field(min_length=1)
    """Local file, folder or archive (.gz, .tar.gz, .zip read in place), `starter`, or a Hub data set id."""
    revision: str | None = None
    """Git revision of a Hub data set."""
    split: str = "train"
    """Which split of a Hub data set."""
    columns: dict[str, str] = {}
    """Names of columns that differ from the layout's own, as `{question: Frage, answer: Antwort, topic: Thema}`."""
    limit: int | None = Field(None, ge=1)
    """Take only this many rows, spread evenly over the source."""
    licence: str = ""
    """Licence of the data, for the data card and the manifest."""


class CleanSection(Section):
    """Which rows are dropped before the split."""

    min_answer_words: int = Field(5, ge=0)
    """Answers with fewer words are junk."""
    max_answer_words: int | None = Field(None, ge=1)
    """Answers with more words are dropped; null keeps them (they are cut at `data.max_length` tokens)."""
    exclude: str | None = None
    """Answers in which this regular expression is found are dropped: tables, lists of links and the like."""
    max_repeats: int | None = Field(20, ge=1)
    """An answer that stands this often word for word under different questions is boilerplate: the rest are dropped."""
    near_duplicate: float = Field(0.8, gt=0, le=1)
    """Word Jaccard similarity from which two answers count as near duplicates."""
    max_bad_rows: Share = 0.01
    """Share of broken rows past which the run stops."""

    @field_validator("exclude")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression ({error}): {value!r}") from None
        return value


class SplitSection(Section):
    """How the rows are divided; always by topic and near-duplicate answer together."""

    validation: Share = 0.05
    """Share of the rows for validation."""
    test: Share = 0.05
    """Share of the rows for the test."""
    phrasings: Share = 0.0
    """Share of the training questions about one topic with one answer held out as a second test, `test_seen`."""
    seed: int = 0
    """Seed of the split alone, so that another training seed keeps the same test questions."""

    @model_validator(mode="after")
    def _something_left_to_train(self) -> SplitSection:
        if self.validation + self.test > 0.8:
            raise ValueError(
                f"validation ({self.validation}) + test ({self.test}) leave under a fifth for training: lower one"
            )
        return self


class DataSection(Section):
    """From raw rows to training, validation and test conversations."""

    sources: tuple[Source, ...] = Field(min_length=1)
    """Where the rows come from; several sources are mixed."""
    clean: CleanSection = CleanSection()
    """Which rows are dropped."""
    split: SplitSection = SplitSection()
    """How the rows are divided."""
    max_length: int = Field(512, ge=16)
    """Tokens of a conversation, prompt and answer; what is longer is cut at the end of the answer and counted."""
    max_truncated: float = Field(0.3, ge=0, le=1)
    """Share of cut conversations past which the run stops."""


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by alpha / rank (alpha / sqrt(rank) with rsLoRA)."""
    dropout: Share = 0.05
    """Dropout before the adapter."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the adapted modules, such as `[q_proj, v_proj]`, or `all-linear`."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank)."""
    dora: bool = False
    """Weight-decomposed adapters (DoRA)."""


class PromptSection(Section):
    """Prompt tuning (Lester et al. 2021): learned vectors before the input."""

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens."""
    initial: Literal["vocabulary", "text", "random"] = "vocabulary"
    """Start from embeddings of frequent vocabulary, of `tune.prompt.text`, or at random (which learns badly)."""
    text: str = "Answer the medical question truthfully, clearly and completely."
    """Text whose embeddings are the start when `initial` is `text`; repeated or cut to `tokens`."""


LEARNING_RATES = {"lora": 2e-4, "prompt": 3e-2, "full": 5e-5}


class TuneSection(Section):
    """How the model is tuned."""

    method: Literal["lora", "prompt", "full"] = "lora"
    """Adapters, prompt tuning, or all weights. `lora` on `model.quantization: nf4` is QLoRA."""
    lora: LoraSection = LoraSection()
    """Options of `method: lora`."""
    prompt: PromptSection = PromptSection()
    """Options of `method: prompt`."""
    epochs: float = Field(3, gt=0)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many updates, whatever `epochs` says."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate; null takes the method's own: 2e-4 for lora, 3e-2 for prompt, 5e-5 for full."""
    batch_size: int = Field(8, ge=1)
    """Conversations in one forward pass on one device."""
    accumulation: int = Field(1, ge=1)
    """Forward passes per update; 8 x 1 and 2 x 4 give the same update."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """AdamW, bitsandbytes' AdamW with 8-bit state, or Muon on the hidden matrices (for training from scratch)."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over time."""
    warmup: Share = 0.03
    """Share of the updates over which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    rows: Literal["auto", "packed", "padded"] = "auto"
    """`packed` lays documents end to end without padding, exactly isolated; `padded` groups rows of like length."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    evaluations: int = Field(5, ge=1)
    """How often the validation loss is measured, evenly over the training; the best checkpoint is kept."""
    patience: int | None = Field(None, ge=1)
    """Stop early after this many evaluations without a better validation loss."""
    validation_rows: int = Field(200, ge=1)
    """Validation conversations used for the loss during tuning."""
    sample_answers: int = Field(4, ge=0)
    """Validation questions answered, printed and scored (ROUGE-L) at every evaluation."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Updates between two checkpoints; null saves at every evaluation."""
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = ()
    """Experiment trackers; none by default, so nothing leaves the machine."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in force: the recipe's, or the method's own."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate


class Recipe(Section):
    """One run, from raw data to report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder under runs/: letters, digits, '.', '_' and '-'."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of everything random but the split (`data.split.seed`)."""
    model: ModelSection
    """The base model."""
    data: DataSection
    """The data."""
    tune: TuneSection = TuneSection()
    """The tuning."""
    evaluate: EvaluateSection = EvaluateSection()
    """The evaluation."""
    sweep: SweepSection = SweepSection()
    """Experiments around this recipe."""
    assistant: AssistantSection = AssistantSection()
    """The assistant that is built around the tuned model."""

    @model_validator(mode="after")
    def _known_bad_pairs(self) -> Recipe:
        problems = [text for is_bad, text in known_bad_pairs(self) if is_bad]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def known_bad_pairs(recipe: Recipe) -> list[tuple[bool, str]]:
    """Options that are valid alone and wrong together: whether each holds, and what to say then."""
    model, tune = recipe.model, recipe.tune
    return [
        (
            tune.method == "prompt" and tune.rows == "packed",
            "tune.method: prompt and tune.rows: packed exclude each other, because PEFT drops position_ids and "
            "documents would leak into each other. Set tune.rows: padded.",
        ),
        (
            tune.method == "full" and model.quantization == "nf4",
            "tune.method: full and model.quantization: nf4 exclude each other, because 4-bit weights have no gradient. "
            "Set tune.method: lora (that is QLoRA) or model.quantization: none.",
        ),
        (
            tune.optimizer == "muon" and tune.method != "full",
            f"tune.optimizer: muon and tune.method: {tune.method} exclude each other, because Muon makes updates of "
            "whole weight matrices orthogonal, and an adapter's are none. Set tune.optimizer: adamw.",
        ),
        (
            tune.lora.dora and model.quantization == "nf4" and model.device == "cpu",
            "tune.lora.dora and model.quantization: nf4 on model.device: cpu is not supported. "
            "Set tune.lora.dora: false.",
        ),
        (
            model.base == "scratch" and model.quantization == "nf4",
            "model.base: scratch and model.quantization: nf4 exclude each other, because random weights must be "
            "trained, not quantised. Set model.quantization: none.",
        ),
        (
            tune.rows == "packed" and model.attention not in ("auto", "documents"),
            f"tune.rows: packed and model.attention: {model.attention} exclude each other, because only medtune's own "
            "kernel keeps packed documents apart. Set model.attention: documents, or tune.rows: padded.",
        ),
        (
            recipe.data.split.test == 0 and "tuned" in recipe.evaluate.systems,
            "data.split.test: 0 leaves nothing to measure evaluate.systems on. "
            "Set data.split.test, for example to 0.05.",
        ),
    ]
