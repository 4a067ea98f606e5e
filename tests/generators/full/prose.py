"""Radiology reports of real length and form, put together from sentences that reports are full of; nobody's report."""

from __future__ import annotations

import random
import re

_EXAMINATIONS = (
    "CHEST (PA AND LAT)",
    "CHEST (PORTABLE AP)",
    "DX CHEST PORTABLE PICC LINE PLACEMENT",
    "CHEST RADIOGRAPH",
)
_INDICATIONS = (
    "___F with new onset ascites, evaluate for infection.",
    "___ year old man with cough and fever // r/o pneumonia",
    "___M with chest pain and shortness of breath, evaluate for acute process",
    "___ year old woman s/p line placement // line position, pneumothorax?",
    "History: ___F with fall // fracture?",
)
_TECHNIQUES = (
    "Chest PA and lateral.",
    "Single portable AP view of the chest.",
    "Frontal and lateral views of the chest were obtained with the patient in the upright position.",
)
_COMPARISONS = (
    "None.",
    "Chest radiograph from ___.",
    "___, CT chest from ___.",
    "Multiple prior radiographs, most recently ___.",
)
_FINDINGS = (
    "There is no focal consolidation, pleural effusion or pneumothorax.",
    "The cardiomediastinal silhouette is within normal limits.",
    "The heart is mildly enlarged, unchanged from the prior study.",
    "Bilateral nodular opacities that most likely represent nipple shadows are again seen.",
    "Lung volumes are low, with bibasilar atelectasis and crowding of the bronchovascular structures.",
    "There is a moderate right pleural effusion with adjacent compressive atelectasis, slightly increased since ___.",
    "A right-sided PICC terminates in the mid SVC; an endotracheal tube ends 4.2 cm above the carina.",
    "Clips project over the left lung, potentially within the breast.",
    "The imaged upper abdomen is unremarkable.",
    "Chronic deformity of the posterior left sixth and seventh ribs is noted.",
    "Mild pulmonary vascular congestion is present without overt edema.",
    "Opacity in the left lower lobe could represent atelectasis, although pneumonia cannot be excluded.",
    "No displaced rib fracture is seen.",
    "The aorta is tortuous and calcified, and hilar contours are stable.",
    "There is a small left apical pneumothorax, measuring 9 mm.",
    "A 7 mm nodule in the right upper lobe is not clearly seen on the prior examination.",
    "Degenerative changes of the thoracic spine are similar to before.",
    "Pacemaker leads terminate in the right atrium and right ventricle, in standard position.",
)
_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "Right basilar opacity, atelectasis versus pneumonia in the appropriate clinical setting.",
    "Moderate right pleural effusion, increased. No pneumothorax.",
    "Lines and tubes in standard position. No evidence of pneumothorax.",
    "Findings compatible with mild interstitial edema and cardiomegaly.",
    "No relevant change as compared to the previous radiograph.",
    "Interval resolution of the left lower lobe consolidation.",
)


_LINE = re.compile(r"(.{1,77})(?: |$)")


def _body(text: str) -> str:
    return _LINE.sub(r" \1\n", text)


def _line(name: str, text: str) -> str:
    return _body(f"{name}:  {text}")


def _section(name: str, text: str) -> str:
    return f" {name}:\n \n{_body(text)}"


def report(study: int, seed: int = 0) -> str:
    """The text of one study's report, 400 to 1,800 characters; the same for the same study and seed.

    Most have an impression, some findings only, some a bare paragraph, a few an addendum, as in MIMIC-CXR.
    """
    rng = random.Random((seed << 32) + study)
    parts = ["                                 FINAL REPORT\n"]
    if rng.random() < 0.03:
        parts.insert(0, " WET READ: ___ ___ ___ 9:12 PM\n" + _body(rng.choice(_IMPRESSIONS)) + " ______________\n")
    findings = " ".join(rng.sample(_FINDINGS, rng.randint(3, 9)))
    form = rng.random()
    if form < 0.046:
        return "".join((*parts, " \n", _body(rng.choice(_EXAMINATIONS)), " \n", _body(findings)))
    parts.append(_line("EXAMINATION", rng.choice(_EXAMINATIONS)))
    parts.append(_line("INDICATION", rng.choice(_INDICATIONS)))
    if rng.random() < 0.6:
        parts.append(_line("TECHNIQUE", rng.choice(_TECHNIQUES)))
    parts.append(_line("COMPARISON", rng.choice(_COMPARISONS)))
    if form < 0.168 or rng.random() < 0.75:
        parts.append(_section("FINDINGS", findings))
    if form >= 0.168:
        parts.append(_section("IMPRESSION", " ".join(rng.sample(_IMPRESSIONS, rng.randint(1, 3)))))
    return " \n".join(parts)
