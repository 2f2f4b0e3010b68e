"""All faults planted into the scripts of the gallery."""

from __future__ import annotations

from tests.scripts import faults_steps, faults_values, faults_wiring
from tests.scripts.planting import FAULTS, FOLDER, GALLERY, Fault, original

PARTS = (faults_wiring, faults_steps, faults_values)
"""The files whose import fills `FAULTS`."""

__all__ = ["FAULTS", "FOLDER", "GALLERY", "PARTS", "Fault", "original"]
