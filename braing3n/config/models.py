"""Architectures (paper, Appendix C)."""

from __future__ import annotations

from pydantic import Field, model_validator

from braing3n.config.base import Settings


class MAEArchitecture(Settings):
    """3D masked autoencoder on 16^3 patches of 160x192x160 volumes."""

    hidden: int = Field(1152, gt=0, multiple_of=6)
    """Encoder width."""
    depth: int = Field(12, ge=1)
    """Encoder blocks."""
    heads: int = Field(16, ge=1)
    """Encoder attention heads."""
    mlp: int = Field(4608, ge=1)
    """Encoder MLP width."""
    decoder_hidden: int = Field(1152, gt=0, multiple_of=2)
    """Decoder width."""
    decoder_depth: int = Field(8, ge=1)
    """Decoder blocks."""
    decoder_heads: int = Field(16, ge=1)
    """Decoder attention heads."""
    decoder_mlp: int = Field(4608, ge=1)
    """Decoder MLP width."""
    mask_ratio: float = Field(0.70, gt=0, lt=1)
    """Part of the 1200 tokens that is hidden."""
    cls_token: bool = False
    """A class token before the patches, as MONAI's class has."""
    qkv_bias: bool = False
    """Biases of the query, key and value projections."""
    foreground_tokens: int | None = Field(None, ge=2)
    """Tokens of a volume that are used, those with brain first; `mask_ratio` is a part of these. Default: all."""
    brain_weighted_loss: bool = False
    """Weigh masked patches by their share of brain voxels."""
    norm_pixels: bool = False
    """Predict patches with their own mean and variance taken out."""
    qk_norm: bool = False
    """Normalise queries and keys."""
    registers: int = Field(0, ge=0)
    """Learned tokens that take part in the encoder and are dropped after it."""
    rope: bool = False
    """3D rotary positions in every attention, beside the sine-cosine ones."""

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads or self.decoder_hidden % self.decoder_heads:
            raise ValueError("hidden must be a multiple of heads, decoder_hidden of decoder_heads")
        if self.rope and (self.hidden // self.heads % 2 or self.decoder_hidden // self.decoder_heads % 2):
            raise ValueError("rope needs an even width of every head")
        return self


class TokenizerArchitecture(Settings):
    """Linear projection of frozen tokens and a 3D CNN decoder; these widths give the paper's 43.7 M parameters."""

    latent: int = Field(32, ge=1)
    """Channels of a latent token, d' of the paper."""
    widths: tuple[int, int, int, int, int] = (512, 256, 128, 64, 32)
    """Channels at 10x12x10 and after each of the four doublings."""
    blocks_per_level: int = Field(2, ge=1)
    """Residual blocks at each resolution."""
    attention_levels: tuple[int, ...] = (1,)
    """Levels with an attention block: 0 is 10x12x10, 1 is 20x24x20."""
    attention_heads: int = Field(4, ge=1)
    """Heads of the attention blocks."""
    groups: int = Field(32, ge=1)
    """Groups of every GroupNorm; lowered to the channel count where that is smaller."""


class DiTArchitecture(Settings):
    """Diffusion transformer on 1200x32 token latents, adaLN-Zero."""

    hidden: int = Field(1152, gt=0, multiple_of=6)
    """Width."""
    depth: int = Field(12, ge=1)
    """Blocks."""
    heads: int = Field(18, ge=1)
    """Attention heads."""
    mlp_ratio: float = Field(4.0, gt=0)
    """MLP width over width."""
    latent: int = Field(32, ge=1)
    """Channels of a latent token; that of the tokenizer."""

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads:
            raise ValueError("hidden must be a multiple of heads")
        return self


class CategoricalCondition(Settings):
    column: str
    """Column of the metadata or pair table."""
    classes: tuple[str, ...] = Field(min_length=2)
    """A value outside these is treated as unknown."""


class ContinuousCondition(Settings):
    column: str
    scale: float = Field(1.0, gt=0)
    """Factor before the sinusoids, whose fastest turns once every 2 pi: about 100 over the range resolves it well."""


class ConditionVocabulary(Settings):
    """What a DiT is conditioned on, by name."""

    categorical: dict[str, CategoricalCondition]
    """Name -> the metadata column and its classes, each with an embedding."""
    continuous: dict[str, ContinuousCondition]
    """Name -> the metadata column and its scale, embedded by sinusoids and an MLP."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.categorical, *self.continuous)

    @model_validator(mode="after")
    def _names_differ(self):
        if len(set(self.names)) < len(self.names):
            raise ValueError("a condition is either categorical or continuous")
        for name, condition in self.categorical.items():
            if len(set(condition.classes)) < len(condition.classes):
                raise ValueError(f"{name} lists a class twice")
        return self
