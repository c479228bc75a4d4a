"""What happens to a trained model if its inputs are noisy or gone, and what it knows of that.

`measure_robustness` evaluates corruptions at rising levels, `measure_calibration` the confidence
from every subset of the modalities; see docs/robustness.md.
"""
