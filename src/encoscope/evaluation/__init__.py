"""How good segmentations are: baselines, localization, overlap, stability and faithfulness, resumable."""
