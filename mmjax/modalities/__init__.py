"""The science of modalities: which one does the work, and what happens without it."""
