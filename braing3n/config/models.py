"""Architectures (paper, Appendix C)."""

from __future__ import annotations

from pydantic import Field, model_validator

from braing3n.config.base import Settings


class MAEArchitecture(Settings):
    """3D masked autoencoder on 16^3 patches of 160x192x160 volumes."""

    hidden: int = Field(1152, gt=0, multiple_of=6)
    depth: int = Field(12, ge=1)
    heads: int = Field(16, ge=1)
    mlp: int = Field(4608, ge=1)
    decoder_hidden: int = Field(1152, gt=0, multiple_of=6)
    decoder_depth: int = Field(8, ge=1)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp: int = Field(4608, ge=1)
    mask_ratio: float = Field(0.70, gt=0, lt=1)
    cls_token: bool = False
    qkv_bias: bool = False

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads or self.decoder_hidden % self.decoder_heads:
            raise ValueError("hidden must be a multiple of heads, decoder_hidden of decoder_heads")
        return self


class TokenizerArchitecture(Settings):
    """Linear projection of frozen tokens and a 3D CNN decoder; these widths give the paper's 43.7 M parameters."""

    latent: int = Field(32, ge=1)
    widths: tuple[int, int, int, int, int] = (512, 256, 128, 64, 32)
    """Channels at 10x12x10 and after each of the four doublings."""
    blocks_per_level: int = Field(2, ge=1)
    attention_levels: tuple[int, ...] = (1,)
    """Levels with an attention block: 0 is 10x12x10, 1 is 20x24x20."""
    attention_heads: int = Field(4, ge=1)
    groups: int = Field(32, ge=1)
    """Groups of every GroupNorm; lowered to the channel count where that is smaller."""


class DiTArchitecture(Settings):
    """Diffusion transformer on 1200x32 token latents, adaLN-Zero."""

    hidden: int = Field(1152, gt=0, multiple_of=6)
    depth: int = Field(12, ge=1)
    heads: int = Field(18, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    latent: int = Field(32, ge=1)

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
    continuous: dict[str, ContinuousCondition]

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
