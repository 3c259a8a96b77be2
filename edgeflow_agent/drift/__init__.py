"""How far what a model sees now is from what it saw in training, from counts alone.

Pure numpy, the same code on the device and on the server: `baseline_file.parse` a baseline, keep a
`sketch.empty` of each feature for a window and `fold` values into it, send it with `record.to_record` and
have it again with `record.from_record`, `merge` it with others, `statistics.measure` and `verdict.judge` it;
then `alarms` says what many verdicts are together. The baseline's format is described in docs/baseline.md.
"""
