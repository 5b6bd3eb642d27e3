"""Every field of a run, its unit, its default and the reason: the only defaults here.

The other configs override a few of these. On the command line any field is
`--config.GROUP.FIELD=value`; an unknown field is an error. "Paper" is Oktay et al.
2018, "published code" the authors' PyTorch repository. The values that each field may
have are in attunet_jax/config_fields.py.
"""

from typing import Any

from ml_collections import ConfigDict

# Those of the paper's Tables 1 and 2.
PAPER_CLASSES = ("background", "spleen", "pancreas", "kidney")


def get_config() -> Any:
    config: Any = ConfigDict()
    config.name = "base"
    # Seed of everything random: initial weights, order of cases, crops, augmentation.
    config.seed = 0
    # Output classes, background first; the others are organs of the prepared data.
    # Empty: background and all organs of the data, in the order of its manifest.
    config.classes = ()
    # Working folder of a finished run to begin from ("" is random parameters). Where
    # `classes` are some of that run's, its other output nodes stay and take no part.
    config.init_from = ""

    model: Any = ConfigDict()
    config.model = model
    # Channels of each scale, fine to coarse (Figure 1; published code: 64..1024 / 4).
    model.widths = (16, 32, 64, 128, 256)
    # Attention gates in parallel per skip connection; 0 is the plain U-Net.
    # The published code has 2 for 3 organs; the paper gives no number.
    model.sub_gates = 2
    # Channels of the gating signal at the bottleneck. 128 gives the 6.40 M
    # parameters of Table 1; the published code has 256 (6.47 M). 0: the bottleneck
    # itself gates (the paper mentions no transform).
    model.gating_channels = 128
    # What gates a skip: "decoder" = the next coarser decoder features (Figure 1),
    # "bottleneck" = the gating signal for all (first commit of the published code).
    model.gate_source = "decoder"
    # Kernel and stride of W_x: published code (2, stride 2); the paper's text says 1
    # (then with stride 2, "without any spatial support").
    model.gate_kernel = 2
    # F_int = channels of the skip / this. Paper "lower dimensional", published code 1.
    model.gate_reduction = 1
    # 1x1x1 convolution and BatchNorm on each sub-gate's output (published code). Off,
    # and with one sub-gate, a gated skip is exactly alpha x.
    model.gate_output_transform = True
    # A coefficient for each voxel ("scalar") or for each voxel and channel ("vector").
    model.attention_coefficients = "scalar"
    # "pass_through": alpha is 0.95 everywhere at step 0 (paper); "kaiming": random
    # around 0.5 (published code).
    model.gate_initialisation = "pass_through"
    # "fused": logits of all scales concatenated and mixed (published code);
    # "auxiliary": a loss on each scale (the reference the paper cites); "none".
    model.deep_supervision = "fused"
    # Trilinear resizing with corners aligned (PyTorch of 2018) or half-pixel centres
    # (today's default everywhere; local, so that volumes can be split over devices).
    model.align_corners = False
    # Type of activations: "float32" or "bfloat16". Parameters, BatchNorm statistics,
    # logits and loss are float32 always.
    model.compute_dtype = "float32"
    # Recompute activations in the backward pass: less memory, about a third more work.
    model.remat = False
    # 3x3x3 convolutions: "auto" picks "channels_last" on GPUs; on one CPU device
    # "onednn" where jaxlib holds it, else "matrix"; everywhere else "compiler".
    model.convolution = "auto"

    data: Any = ConfigDict()
    config.data = data
    # Folder written by data_prep.prepare (--data=DIR sets it too).
    data.directory = ""
    # Which of the folder's splits.json to train and test on.
    data.split = "80_20"
    # Cases a step, over all devices and hosts (paper: 2 to 4).
    data.batch_size = 2
    # Input of the network [D, H, W]; each divisible by 2 ** (len(widths) - 1).
    data.crop_shape = (96, 160, 160)
    # What the host cuts out of a scan [D, H, W]; the device warps it and takes the
    # crop out of it. In-plane larger than the crop, so that warping finds real voxels.
    data.read_shape = (96, 208, 208)
    # "ct": HU are clipped to percentiles 0.5 and 99.5 of the organs' voxels in the
    # training cases and normalised by their mean and deviation (nnU-Net's scheme):
    # padding, metal and the field of view decide nothing. "scan": by mean and deviation
    # of each whole scan, without clipping (paper). A fine-tuning does as its source.
    data.normalisation = "ct"
    # What surrounds a scan smaller than a crop: "lowest", its lowest HU and label 0;
    # "line_minimum", the minimum of each line of voxels, labels too (published code).
    data.padding = "lowest"
    # Share of crops centred on a voxel of an organ of `classes`, each that the case has
    # drawn equally often (published code 0, nnU-Net 0.33).
    data.foreground_fraction = 0.0
    # Threads that read and cut, and batches they keep ready.
    data.threads = 8
    data.prefetch_batches = 4

    augment: Any = ConfigDict()
    config.augment = augment
    # In-plane affine about the centre, the same for all slices of a case; published
    # ranges. Rotation in degrees, shift as a share of the size, zoom drawn apart for
    # both axes.
    augment.rotation_degrees = 15.0
    augment.shift_fraction = 0.1
    augment.zoom_range = (0.7, 1.3)
    # Probability of a flip left-right, and of a flip front-back.
    augment.flip_probability = 0.5
    # "case": as data.normalisation says, the same at prediction; "window": by mean and
    # deviation of the warped voxels that were read (published code; only with "scan").
    augment.normalise_over = "case"

    loss: Any = ConfigDict()
    config.loss = loss
    # Soft Dice: (2 sum(pt) + smoothing) / (sum(p) + sum(t) + smoothing): an absent
    # class that is not predicted scores 1.
    loss.smoothing = 0.01
    # Published code: smoothing inside the factor 2, so that such a class scores 2.
    loss.smoothing_inside_factor = False
    # Average over background too (both paper and code: "all semantic classes").
    loss.include_background = True
    # Sum over classes divided by the number of "classes", or of "outputs": the
    # published code when it fine-tunes two of four outputs (its loss stays above 0.5).
    loss.reduce_over = "classes"
    # Weight of each auxiliary loss where deep_supervision is "auxiliary".
    loss.auxiliary_weight = 0.5

    optimizer: Any = ConfigDict()
    config.optimizer = optimizer
    # "adam" (paper) or "sgd" (momentum 0.9, Nesterov: what the published head runs).
    optimizer.name = "adam"
    optimizer.learning_rate = 1e-4
    # L2 penalty added to the gradient of every parameter (not decoupled decay).
    optimizer.l2 = 1e-6
    # Learning rate times this factor every so many epochs.
    optimizer.decay_factor = 0.5
    optimizer.decay_every_epochs = 250
    # Gradients of this many batches are averaged before an update ("gradient
    # averaging" of the paper).
    optimizer.grad_accum_steps = 1

    train: Any = ConfigDict()
    config.train = train
    # An epoch sees every training case once; the published code trains for 1000.
    train.epochs = 1000
    # Steps instead of epochs where above 0.
    train.steps = 0
    train.log_every_steps = 20
    # Validation Dice of each organ on crops centred on it, one of each validation case
    # that has it; and a checkpoint with it.
    train.evaluate_every_steps = 500
    # Further checkpoints in between, against kills.
    train.checkpoint_every_steps = 100
    # Kept: this many newest and this many best by validation Dice (mean over organs).
    train.keep_latest = 1
    train.keep_best = 1
    # Kept too: checkpoints at these steps, to show how attention develops (Figure 4).
    # Empty: none.
    train.keep_steps = ()
    # Each process names the cases of each step, in workdir/logs.
    train.log_cases = False
    # A run in which no process makes a step for so long hangs: all end with status 134,
    # to be started again. 20 times the median step, where that is longer.
    train.hang_limit_s = 600.0

    mesh: Any = ConfigDict()
    config.mesh = mesh
    # Devices along the batch (-1: all that `spatial` leaves) and along depth.
    mesh.data = -1
    mesh.spatial = 1
    # Depth may be split over the network between TPU slices or hosts of GPUs: slow.
    mesh.spatial_across_slices = False

    predict: Any = ConfigDict()
    config.predict = predict
    # "best" by validation Dice, "latest", or the number of a step that is kept.
    predict.checkpoint = "best"
    # The label of a voxel is the largest of the "classes" that were trained, or of all
    # "outputs" (published code, after fine-tuning on fewer classes).
    predict.argmax_over = "classes"
    # What `launch.evaluate` scores: the "whole" scan, or the "centre_crop" of
    # data.crop_shape (published code).
    predict.region = "whole"
    # Scans up to this many voxels (at the network's spacing) go through whole, as in
    # the paper; larger ones in overlapping windows.
    predict.whole_volume_limit_vox = 12_000_000
    # Windows [D, H, W], their overlap as a share, and the deviation of the Gaussian
    # that weighs them as a share of the window.
    predict.window_shape = (96, 160, 160)
    predict.window_overlap = 0.5
    predict.window_sigma = 0.125
    # Devices that share the depth of a case, for one that does not fit on one.
    predict.spatial = 1
    # Average over the four in-plane flips: a little better, four times the time.
    predict.average_flips = False
    return config
