"""The hyper-parameters of a run.

Defaults are the model page's v2.0 run. Only `initialisation` is not: that run went on from another LoHa.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SettingsError
from .fields import MAX_SEED, check, option
from .module_rates import module_ranks, rate_of

MODULE_SETS = ("attention-mlp", "linear", "all")
INITIALISATIONS = ("lycoris-2023-07", "lycoris-2023-03")
TENSORBOARD = "tensorboard"
MODEL_CARD, KOHYA, PIECEWISE = "model card", "kohya", "piecewise_constant"
SCHEDULES = (MODEL_CARD, "cosine_with_restarts", "cosine", "constant", "linear", "polynomial", "cosine_with_min_lr",
             "inverse_sqrt", "warmup_stable_decay", PIECEWISE)
PRECISIONS = ("fp16", "bf16", "fp32")
LOSSES = ("l2", "l1", "huber", "smooth_l1")
HUBER_SCHEDULES = ("snr", "exponential", "constant")


@dataclass(frozen=True)
class TrainingSettings:
    """What to train and how; the pictures are `DataOptions`.

    Construction raises `SettingsError` for a value out of its range and for settings that exclude
    each other.
    """

    network_rank: int = option(16, "Rank of the factors. The file grows with it.", low=1, high=128)
    network_alpha: float = option(1.0, "Strength of the network is alpha / rank.", low=1e-6, high=1024.0)
    text_encoder_rank: int = option(
        0, "Rank of the text encoder's modules; 0 takes network_rank.", low=0, high=128)
    text_encoder_alpha: float = option(
        0.0, "Alpha of the text encoder's modules; 0 takes network_alpha.", low=0.0, high=1024.0)
    module_set: str = option(
        "linear", "attention-mlp: 264 modules. linear: with projections and 1×1 convolutions, the page's "
        "302. all: with the 3×3 convolutions, 354.", choices=MODULE_SETS)
    conv_rank: int = option(
        0, "Rank of the 3×3 convolutions where module_set is all; 0 takes network_rank.", low=0, high=128)
    conv_alpha: float = option(
        0.0, "Alpha of the 3×3 convolutions; 0 takes network_alpha.", low=0.0, high=1024.0)
    use_tucker: bool = option(False, "Tucker cores for the 3×3 convolutions: a smaller file.")
    module_filter: str = option(
        "", "Train only modules whose kohya name matches one of these comma-separated patterns "
        "(* and ? are wildcards). Empty: all of the set.")
    initialisation: str = option(
        "lycoris-2023-07", "Which LyCORIS the first factors are drawn as; the page's run is the older.",
        choices=INITIALISATIONS)
    rank_dropout: float = option(0.0, "Chance to drop each rank in a step.", low=0.0, high=0.99)
    module_dropout: float = option(0.0, "Chance to drop each module in a step.", low=0.0, high=0.99)
    train_unet: bool = option(True, "Train the U-Net.")
    train_text_encoder: bool = option(True, "Train the text encoder.")
    init_from: str = option("", "A LoHa file to go on from, of the same or a smaller rank. Empty: none.")

    optimizer: str = option("AdamW8bit", "Name in torch.optim, or of a supported installed package.")
    optimizer_args: str = option("", "Further arguments, such as: weight_decay=0.01 betas=0.9,0.99")
    learning_rate: float = option(1e-3, "Peak learning rate. The page's v2.1 halves it.", low=0.0, high=10.0)
    unet_lr: float = option(0.0, "Learning rate of the U-Net; 0 takes learning_rate.", low=0.0, high=10.0)
    text_encoder_lr: float = option(
        0.0, "Learning rate of the text encoder; 0 takes learning_rate.", low=0.0, high=10.0)
    max_grad_norm: float = option(
        1.0, "Gradients are scaled down to this norm; 0 leaves them.", low=0.0, high=1e6)
    lr_scheduler: str = option(
        MODEL_CARD, "model card: one epoch of warm-up, then cosines of 2, 4, 8, 16 epochs.", choices=SCHEDULES,
        former=(("page", MODEL_CARD),))
    lr_warmup_steps: int = option(
        0, "Steps of linear warm-up; the page's schedule has its own.", low=0, high=10_000_000)
    lr_num_cycles: int = option(1, "Cycles of cosine_with_restarts.", low=1, high=1000)

    max_train_epochs: int = option(
        31, "Times through the pictures; 0: as often as max_train_steps takes.", low=0, high=100_000)
    max_train_steps: int = option(
        0, "Stop after this many steps whatever the epochs; 0: by epochs alone.", low=0, high=100_000_000)
    gradient_accumulation_steps: int = option(1, "Batches to one optimiser step.", low=1, high=1024)
    gradient_checkpointing: bool = option(False, "Compute activations twice: less memory, slower.")
    mixed_precision: str = option("fp16", "Precision of the forward pass.", choices=PRECISIONS)
    seed: int = option(0, "Order, noise, dropout and first factors follow from it.", low=0, high=MAX_SEED)
    clip_skip: int = option(2, "2: the text encoder's last layer but one.", low=1, high=12)
    max_token_length: int = option(225, "Tokens of a caption: 75, 150 or 225.", low=75, high=225, step=75)
    prediction: str = option(
        "epsilon", "What the U-Net predicts; model: as the loaded model says.",
        choices=("epsilon", "v", "model"))
    min_snr_gamma: float = option(0.0, "Weigh the loss by min-SNR; 5 is usual, 0 is off.", low=0.0, high=100.0)
    noise_offset: float = option(0.0, "Noise of a whole channel; 0.05 is usual, 0 is off.", low=0.0, high=1.0)

    output_name: str = option("shinymas-v2.0", "Name of the saved files, without ending.")
    save_precision: str = option("fp16", "Precision of the saved factors.", choices=PRECISIONS)
    save_every_n_epochs: int = option(1, "Save after every n epochs; 0: at the end only.", low=0, high=100_000)
    keep_last: int = option(0, "Keep this many of the files of epochs and steps; 0: all.", low=0, high=100_000)
    sample_every_n_epochs: int = option(0, "Draw samples after every n epochs; 0: never.", low=0, high=100_000)
    sample_prompts: str = option(
        "", "One prompt a line, drawn with fixed seeds; kohya's --n, --w, --h, --d, --l, --s may follow. Or a file.")
    base_model: str = option("", "The checkpoint trained on: read by the command line, noted in the file.")
    vae: str = option("", "Another VAE than the checkpoint's: read by the command line.")
    defaults: str = option(
        MODEL_CARD, "Whose values count where a configuration names none; without one every widget is a value.",
        choices=(MODEL_CARD, KOHYA), since="0.2.0")

    validate_every_n_epochs: int = option(
        1, "Validate after every n epochs, where pictures are set apart for it, and at the end; 0: not by epochs.",
        low=0, high=100_000, since="0.2.0")
    validate_every_n_steps: int = option(
        0, "Validate after every n steps as well; 0: not by steps.", low=0, high=100_000_000, since="0.2.0")
    max_validation_steps: int = option(
        0, "Batches of pictures that a validation looks at, at most; 0: all that are set apart.",
        low=0, high=1_000_000, since="0.2.0")
    early_stop: int = option(
        0, "End the run when so many validations in a row were no better than the best; 0: never.",
        low=0, high=100_000, since="0.2.0")
    ema_decay: float = option(
        0.0, "Give out a running mean of the factors (EMA) instead of the last ones; 0.999 is usual, 0 is off.",
        low=0.0, high=0.99999, since="0.2.0")
    ema_keep_both: bool = option(
        False, "Save the factors without the running mean too, as NAME-no-ema.", since="0.2.0")

    loss_type: str = option(
        "l2", "How far a prediction is off: l2 (mean squares), l1, or huber and smooth_l1, which forgive outliers.",
        choices=LOSSES, since="0.2.0")
    huber_schedule: str = option(
        "snr", "Where huber and smooth_l1 begin to forgive, over the timesteps.", choices=HUBER_SCHEDULES,
        since="0.2.0")
    huber_c: float = option(
        0.1, "Error from which huber and smooth_l1 forgive, at the noisiest timestep.", low=1e-6, high=1000.0,
        since="0.2.0")
    huber_scale: float = option(
        1.0, "Factor on that error with the schedules exponential and constant.", low=1e-6, high=1000.0, since="0.2.0")
    debiased_estimation_loss: bool = option(
        False, "Weigh the loss by 1 / √SNR, so that noisy timesteps count more.", since="0.2.0")
    min_timestep: int = option(0, "Train from this timestep on.", low=0, high=999, since="0.2.0")
    max_timestep: int = option(1000, "Train below this timestep.", low=1, high=1000, since="0.2.0")
    scale_weight_norms: float = option(
        0.0, "Scale each module's ΔW down to this norm after each step; 1 is usual, 0 is off.", low=0.0, high=1e6,
        since="0.2.0")
    noise_offset_random_strength: bool = option(
        False, "Draw the noise offset from 0 to noise_offset each time.", since="0.2.0")
    multires_noise_iterations: int = option(
        0, "Add noise of so many coarser resolutions (pyramid noise); 6 is usual, 0 is off.", low=0, high=64,
        since="0.2.0")
    multires_noise_discount: float = option(
        0.3, "Factor on each coarser resolution's noise.", low=0.0, high=1.0, since="0.2.0")
    ip_noise_gamma: float = option(
        0.0, "Noise on the noisy latents that is not to be predicted (input perturbation); 0.1 is usual, 0 is off.",
        low=0.0, high=1.0, since="0.2.0")
    ip_noise_gamma_random_strength: bool = option(
        False, "Draw the input perturbation's strength from 0 to ip_noise_gamma each time.", since="0.2.0")
    lr_warmup_share: float = option(
        0.0, "Warm-up as a share of the run, instead of lr_warmup_steps; 0.05 is usual, 0 is off.", low=0.0, high=0.99,
        since="0.2.0")
    lr_scheduler_power: float = option(1.0, "Power of polynomial; 1 is a line.", low=0.01, high=100.0, since="0.2.0")
    lr_scheduler_min_lr_ratio: float = option(
        0.0, "Share of the peak at which cosine_with_min_lr and warmup_stable_decay end.", low=0.0, high=1.0,
        since="0.2.0")
    lr_decay_steps: float = option(
        0.0, "Last steps of warmup_stable_decay, in which it falls; below 1 a share of the run.", low=0.0,
        high=10_000_000.0, since="0.2.0")
    lr_scheduler_timescale: int = option(
        0, "Timescale of inverse_sqrt; 0 takes the warm-up, or 10000.", low=0, high=10_000_000, since="0.2.0")
    save_every_n_steps: int = option(
        0, "Save after every n steps too; 0: by epochs alone.", low=0, high=100_000_000, since="0.2.0")
    training_comment: str = option("", "A note in the file, for those who open it.", since="0.2.0")
    keep_last_steps: int = option(
        0, "Keep files of steps for so many steps, beside keep_last files of epochs; 0: they count in keep_last.",
        low=0, high=100_000_000, since="0.2.0")
    sample_every_n_steps: int = option(
        0, "Draw samples after every n steps, where sample_every_n_epochs is 0; 0: by epochs alone.", low=0,
        high=100_000_000, since="0.2.0")
    sample_at_first: bool = option(False, "Draw samples before the first step too.", since="0.2.0")
    lr_scheduler_type: str = option(
        "", "A schedule of torch.optim.lr_scheduler instead of lr_scheduler, such as CosineAnnealingLR.", since="0.2.0")
    lr_scheduler_args: str = option(
        "", "Arguments of lr_scheduler_type, such as: T_max=1000 eta_min=1e-6; or step_rules of piecewise_constant.",
        since="0.2.0")
    zero_terminal_snr: bool = option(
        False, "The last timestep is noise alone; for models that predict v.", since="0.2.0")
    scale_v_pred_loss_like_noise_pred: bool = option(
        False, "Weigh the loss of a model that predicts v as if it predicted noise.", since="0.2.0")
    v_pred_like_loss: float = option(
        0.0, "Add the loss as of v times this, where the model predicts noise; 0 is off.", low=0.0, high=1000.0,
        since="0.2.0")
    adaptive_noise_scale: float = option(
        0.0, "Add this times the latents' mean to noise_offset; 0 is off.", low=-100.0, high=100.0, since="0.2.0")
    log_with: str = option(
        "none", "tensorboard: losses and rates for TensorBoard, where it is installed.", choices=("none", TENSORBOARD),
        since="0.2.0")
    logging_dir: str = option(
        "", "Where logs go, the time behind it: read by the command line.", since="0.2.0")
    block_lr_weights: str = option(
        "", "25 factors on the U-Net's rate, of its blocks: 12 down, the middle, 12 up. Empty: none.", since="0.2.0")
    module_lrs: str = option(
        "", "Rates of modules by regular expressions, such as: attn1=1e-4, mid_block=0. The first that fits counts.",
        since="0.2.0")
    module_ranks: str = option(
        "", "Ranks of modules by regular expressions, such as: attn1=8, mid_block=4. The first that fits counts.",
        since="0.2.0")

    def __post_init__(self) -> None:
        check(self)
        rate_of(self.block_lr_weights, self.module_lrs)
        module_ranks(self.module_ranks)
        if not (self.train_unet or self.train_text_encoder):
            raise SettingsError(
                "train_unet and train_text_encoder are both off: nothing is left to train. Turn one on."
            )
        if not (self.max_train_epochs or self.max_train_steps):
            raise SettingsError("max_train_epochs and max_train_steps are both 0: say how long to train")
        if self.learning_rate == 0 and not (self.unet_lr or self.text_encoder_lr):
            raise SettingsError("learning_rate: 0 trains nothing; the page's v2.0 has 0.001")
        if self.lr_warmup_steps and self.lr_warmup_share:
            raise SettingsError(f"lr_warmup_steps {self.lr_warmup_steps} and lr_warmup_share {self.lr_warmup_share} "
                                "exclude each other: set one of them to 0.")
        warmup = self.lr_warmup_steps or self.lr_warmup_share
        if self.lr_scheduler_type and warmup:
            raise SettingsError(f"lr_warmup_steps {warmup} and lr_scheduler_type exclude each other: torch's schedules "
                                "have no warm-up before them. Set lr_warmup_steps to 0, or clear lr_scheduler_type.")
        if self.lr_scheduler == MODEL_CARD and warmup:
            raise SettingsError(
                f"lr_warmup_steps {warmup} and lr_scheduler {MODEL_CARD} exclude each other: its "
                "schedule warms up over its first epoch. Set lr_warmup_steps to 0 or choose another schedule."
            )
        if self.early_stop and not (self.validate_every_n_epochs or self.validate_every_n_steps):
            raise SettingsError(f"early_stop {self.early_stop} needs validations, and validate_every_n_epochs and "
                                "validate_every_n_steps are both 0: set one of them, or early_stop to 0.")
        if self.adaptive_noise_scale and not self.noise_offset:
            raise SettingsError(f"adaptive_noise_scale {self.adaptive_noise_scale} is added to noise_offset, which is "
                                "0: set noise_offset, or adaptive_noise_scale to 0.")
        if self.scale_v_pred_loss_like_noise_pred and self.prediction == "epsilon":
            raise SettingsError("scale_v_pred_loss_like_noise_pred is of models that predict v, and prediction is "
                                "epsilon: set prediction (v_parameterization), or turn it off.")
        if self.v_pred_like_loss and self.prediction == "v":
            raise SettingsError(f"v_pred_like_loss {self.v_pred_like_loss} is of models that predict noise, and "
                                "prediction is v: set it to 0.")
        if self.ema_decay and self.optimizer.lower().endswith("schedulefree"):
            raise SettingsError(f"ema_decay {self.ema_decay} and {self.optimizer} exclude each other: a schedule-free "
                                "optimiser gives out a mean of its own. Set ema_decay to 0.")
        if self.min_timestep > self.max_timestep:
            raise SettingsError(f"min_timestep {self.min_timestep} is above max_timestep {self.max_timestep}: nothing "
                                "lies between. Lower one or raise the other.")
        if self.use_tucker and self.module_set != "all":
            raise SettingsError(
                f"use_tucker needs the 3×3 convolutions, and module_set is {self.module_set}: choose all."
            )
        if self.conv_rank and self.module_set != "all":
            raise SettingsError(
                f"conv_rank {self.conv_rank} needs the 3×3 convolutions, and module_set is "
                f"{self.module_set}: choose all, or set conv_rank to 0."
            )

    @property
    def unet_learning_rate(self) -> float:
        return self.unet_lr or self.learning_rate

    @property
    def text_encoder_learning_rate(self) -> float:
        return self.text_encoder_lr or self.learning_rate

    @property
    def text_encoder_shape(self) -> tuple[int, float]:
        """Rank and alpha of the text encoder's modules."""
        return self.text_encoder_rank or self.network_rank, self.text_encoder_alpha or self.network_alpha

    @property
    def conv_shape(self) -> tuple[int, float]:
        """Rank and alpha of the 3×3 convolutions."""
        return self.conv_rank or self.network_rank, self.conv_alpha or self.network_alpha
