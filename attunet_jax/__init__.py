"""3D Attention U-Net for CT segmentation: scans in, label maps and tables out.

Read the folders as the story: volume (a scan and its geometry), data (records and
batches), augment, model, train, predict, evaluate; `sharding` and `checkpoint` are
the two things a cluster adds, `errors` what a user can get wrong.
"""
