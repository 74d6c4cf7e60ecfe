"""Where encoders' weights are published and on what terms. No torch here: the workflow and the report ask it too."""

from __future__ import annotations

from dataclasses import dataclass

BRAINIAC = "https://github.com/AIM-KannLab/BrainIAC"
MEDICALNET = "https://github.com/Tencent/MedicalNet"
MEDICALNET_DEPTHS = (10, 18, 34, 50, 101, 152, 200)


@dataclass(frozen=True)
class Publication:
    """An encoder's weights as published."""

    name: str
    citation: str
    licence: str
    url: str
    file: str

    @property
    def where(self) -> str:
        return f"{self.file} from {self.url} (licence: {self.licence})"

    @property
    def remedy(self) -> str:
        """What to do when the weights are not there."""
        return (
            f"download {self.where}, put it anywhere and give its path with --weights, or in the configuration as "
            f"probe.weights.{self.name}"
        )


def _medicalnet(depth: int) -> Publication:
    file = f"resnet_{depth}_23dataset.pth" if depth in (10, 18, 34, 50) else f"resnet_{depth}.pth"
    return Publication(f"medicalnet-{depth}", "Chen et al. 2019, arXiv 1904.00625", "MIT", MEDICALNET, file)


def _brainsegfounder(name: str) -> Publication:
    return Publication(
        name,
        "Cox et al. 2024, Medical Image Analysis",
        "code GPL-3.0; weights under UK Biobank's material transfer terms",
        "https://github.com/lab-smile/BrainSegFounder",
        "model_bestValRMSE.pt of the UKB stage",
    )


PUBLICATIONS = {
    publication.name: publication
    for publication in (
        Publication(
            "brainiac", "Tak et al. 2026, Nature Neuroscience", "non-commercial academic use", BRAINIAC, "BrainIAC.ckpt"
        ),
        Publication(
            "brainiac-v1", "Tak et al. 2024, preprint", "non-commercial academic use", BRAINIAC, "BrainIAC.ckpt of 2025"
        ),
        _brainsegfounder("brainsegfounder"),
        _brainsegfounder("brainsegfounder-first"),
        Publication(
            "autoencoder-kl",
            "Rombach et al. 2022, CVPR",
            "that of your training",
            "your own training, with MONAI's AutoencoderKL",
            "model.safetensors with card.json beside it",
        ),
        *(_medicalnet(depth) for depth in MEDICALNET_DEPTHS),
    )
}
