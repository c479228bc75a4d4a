"""mmjax against the same models in plain PyTorch: cases, timing, roofline and table."""
