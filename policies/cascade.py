"""How a route's tiers are judged, what they are to achieve, and how that is measured."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from policies.scalars import Duration, Name, Probability, Real, Usd, Whole, in_folder
from policies.section import Section

_PIN = "#sha256:"


class Early(Section):
    """Reject a draft mid-decode: after this many tokens, below this confidence."""

    after_tokens: Whole = Field(4, ge=1)
    threshold: Probability = 0.2


class Confidence(Section):
    """How sure a draft must be to be served.

    `logprob`: the `quantile` (0 = the least likely token) of the tokens'
    probabilities must reach `threshold`. `agreement`: the model named in
    `with` must say the same. `learned`: what a bundle has learnt decides, or
    before there is one, careful rules of the cold start.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: str = "logprob"
    threshold: Probability = 0.8
    quantile: Probability = 0.0
    early: Early | None = None
    second: Name | None = Field(None, alias="with")


class Target(Section):
    """What a learned cascade is to achieve; exactly one of the three is named.

    `max_quality_loss`: with probability `certainty`, at most this share of all answers
    comes from another model than the reference and is worse than the reference's.
    `max_usd_per_1k`: a thousand requests cost at most this. `usd_per_quality_point`:
    a hundredth of a right answer is worth this.
    """

    max_quality_loss: Probability | None = Field(None, gt=0, lt=1)
    certainty: Probability = Field(0.95, ge=0.5, lt=1)
    max_usd_per_1k: Usd | None = Field(None, gt=0)
    usd_per_quality_point: Usd | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Target:
        named = [
            name
            for name in ("max_quality_loss", "max_usd_per_1k", "usd_per_quality_point")
            if getattr(self, name) is not None
        ]
        if len(named) != 1:
            found = " and ".join(named) or "none"
            raise ValueError(
                "expected exactly one of max_quality_loss, max_usd_per_1k and "
                f"usd_per_quality_point, found {found}"
            )
        return self


class Audit(Section):
    """How often the reference is asked as well, behind the client's back, to learn and certify.

    `judge` names a model that compares two answers where nothing exact can.
    """

    share: Probability = 0.02
    max_usd_per_day: Usd = Decimal(5)
    judge: Name | None = None


class Learning(Section):
    """When a learned cascade without a bundle takes its steps by itself, and how often it looks.

    From so many labels drafts' confidence is calibrated, from so many audits a quality floor is
    certified, and from so many a full learner is trained. With `automatic: false` nothing of it
    is done, and nothing is given up.
    """

    automatic: bool = True
    every: Duration = 30.0
    calibrate_from: Whole = Field(50, ge=20)
    certify_from: Whole = Field(200, ge=20)
    train_from: Whole = Field(1_000, ge=100)


def _confidence(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


def _bundle(value: str, info: ValidationInfo) -> str:
    path, pin, digest = value.partition(_PIN)
    if not path or (pin and not (len(digest) == 64 and set(digest) <= set("0123456789abcdef"))):
        raise ValueError("expected a folder made by `frugal train`, optionally with #sha256:<id>")
    return f"{in_folder(Path(path), info)}{pin}{digest}"


BundlePath = Annotated[str, AfterValidator(_bundle)]


class Cascade(Section):
    """Tiers from the cheapest to the best, and when to be content.

    `control` is the share of requests sent straight to the reference, to measure what
    the cascade saves. A second of a client's waiting is worth `usd_per_second`: a learned
    cascade adds it to the price of each call.
    """

    tiers: tuple[Name, ...] = Field(min_length=1, max_length=8)
    reference: Name | None = None
    confidence: Annotated[
        Confidence, BeforeValidator(_confidence, json_schema_input_type=Confidence | str)
    ] = Confidence()
    target: Target | None = None
    bundle: BundlePath | None = None
    audit: Audit | None = None
    learning: Learning | None = None
    control: Annotated[Real, Field(ge=0, le=0.5)] = 0.0
    usd_per_second: Usd | None = Field(None, gt=0)
    max_hold: Duration | None = None
    keepalive: Duration | None = None

    @property
    def reference_model(self) -> str:
        """Return the model that savings are measured against: the last tier unless named."""
        return self.reference or self.tiers[-1]

    @property
    def bundle_path(self) -> Path | None:
        """Return the folder of the bundle, without the id it is pinned to."""
        return None if self.bundle is None else Path(self.bundle.partition(_PIN)[0])

    @property
    def bundle_id(self) -> str | None:
        """Return the id that the bundle must have, `sha256:…`; None where any will do."""
        _, pin, digest = (self.bundle or "").partition(_PIN)
        return f"sha256:{digest}" if pin else None
