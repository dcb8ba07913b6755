"""What every setting of every recipe changes, for test_config.py."""

# field: (its new value, what must look different); a text for the value is the name of a folder of the fixture `places`.
# "refused": the ValueError names it. Fields that need others changed as well have them in BESIDE.
ENGINE = {
    "learning_rate": (2e-3, "weights"), "num_train_epochs": (0.5, "log"), "max_steps": (3, "log"), "train_batch_size": (4, "log"),
    "max_tokens": (40, "passes"), "optimizer": ("ranger_adabelief", "weights"), "weight_decay": (0.5, "weights"),
    "max_grad_norm": (0.01, "weights"), "lr_scheduler_type": ("constant", "log"), "warmup_ratio": (0.9, "log"),
    "warmup_steps": (2, "log"), "seed": (7, "weights"), "bf16": (True, "weights"), "fp16": (True, "refused"),
    "eval_steps": (1, "log"), "save_steps": (1, "saves"), "save_minutes": (1e-9, "saves"), "logging_steps": (2, "log"), "save_total_limit": (1, "kept"),
    "eval_on_start": (True, "log"), "compile": (True, "compiled"), "trim_vocabulary": (False, "weights"), "fsdp": (True, "refused"),
}
REFUSED = {"stride": (8, "refused"), "max_query_length": (8, "refused")}  # by tasks whose texts are read whole; test_spans.py has others
FINETUNE = ENGINE | {
    "output_dir": ("elsewhere", "path"), "data_dir": ("other glue", "weights"), "model": ("deberta", "weights"), "random_init": (True, "weights"),
    "layers": ("layers:0,2", "weights"), "pooling": ("mean", "weights"), "head_dropout": (0.5, "weights"),
    "max_length": (5, "weights"), "select_on": ("heldout", "log"), **REFUSED,
}
SELF_TEACHING = FINETUNE | {
    "schedule": ("4,1", "weights"), "kl_weight": (3.0, "weights"), "student_ce_weight": (1.0, "weights"),
    "detach_teacher": (True, "weights"), "eval_on_start": (False, "log"),
}
SENSE_KD = ENGINE | {
    "output_dir": ("elsewhere", "path"), "data_dir": ("other glue", "weights"), "teacher": ("other teacher", "weights"),
    "senses": ("these other senses", "weights"), "student": ("layers:0,3", "weights"), "head_input": ("senses", "weights"),
    "sense_weight": (3.0, "weights"), "ce_weight": (3.0, "weights"), "kl_weight": (3.0, "weights"), "temperature": (5.0, "weights"),
    "freeze_head": (True, "weights"), "special_senses": (True, "weights"), "max_length": (5, "weights"),
    "similarity": ("dot", "weights"), "sense_temperature": (4.0, "weights"), "soft_senses": (True, "weights"),
    "relation_weight": (3.0, "weights"), "relation_heads": (4, "weights"),
    "cache_dir": ("shared cache", "cache"), "student_layers": ("layers:0,3", "weights"), "max_cache_gib": (0.0, "passes"),
    "select_on": ("heldout", "log"), **REFUSED,
}
OWN = {  # what the other recipes add to DistilConfig, whose settings all reach distil(), as sense_kd's do
    "logit_kd": {}, "pkd": {"cls_weight": (3.0, "weights"), "layer_map": ("last", "weights")},
    "tinybert": {"hidden_weight": (3.0, "weights"), "attention_weight": (3.0, "weights"), "layer_map": ("skip", "weights"),
                 "intermediate_share": (0.9, "weights")},
    "relation_kd": {"relation_weight": (3.0, "weights"), "relation_heads": (4, "weights"), "teacher_layer": (2, "weights")},
}
MPDISTIL = {  # what it adds to TaskConfig, whose settings reach every fit (test_mpdistil.py)
    "output_dir": ("elsewhere", "path"), "stages_dir": ("elsewhere", "stages"), "model": ("deberta", "weights"),
    "student": ("layers:0,3", "weights"), "pooling": ("cls", "weights"), "head_dropout": (0.5, "weights"), "tasks": ("SST-2", "weights"),
    "teacher_learning_rate": (1e-4, "weights"), "teacher_epochs": (0.5, "weights"),
    "alpha": (0.1, "weights"), "beta": (1.0, "weights"), "temperature": (1.0, "weights"), "soft_loss": ("mse_prob", "weights"),
    "layer_map": ("last", "weights"), "schedule": ("interleaved", "weights"), "meta_learning_rate": (0.1, "log"),
    "meta_epochs": (40.0, "log"), "use_comp_loss": (True, "log"), "compete": (False, "weights"), "policy": ("main", "weights"),
    "policy_learning_rate": (1.0, "log"), "discount": (0.5, "log"), "reward_function": ("real", "log"), "num_episodes": (3, "log"),
    "eval_episodes": (1, "log"), "episode_batch_size": (3, "log"),
    "episode_steps": (1, "log"), "pool_size": (1, "weights"), "main_pool": ("train", "weights"),
    "episode_learning_rate": (1e-3, "weights"), "step_every": ("episode", "weights"),
}
PRETRAIN = {  # what it adds to TrainConfig, whose settings reach its fit as every other
    "output_dir": ("elsewhere", "path"), "corpus": ("other corpus", "weights"), "layout": ("packed", "weights"), "max_length": (16, "weights"),
    "teacher": ("other masked teacher", "weights"), "student": ("layers:0,3", "weights"), "random_init": (True, "weights"),
    "token_types": (False, "weights"), "freeze_backbone": (True, "weights"), "mlm_probability": (0.4, "log"), "mlm_smoothing": (2.0, "log"),
    "mlm_weight": (7.0, "log"), "kl_weight": (7.0, "log"), "kl_on": ("masked", "log"), "temperature": (5.0, "log"), "cos_weight": (7.0, "log"),
    "cos_on": ("cls", "log"), "hidden_weight": (1.0, "log"), "attention_weight": (1.0, "log"), "layer_map": ("uniform", "log"),
    "relation_weight": (1.0, "log"), "relation_heads": (4, "log"), "relation_layer": (2, "log"),
}
SENSES = {
    "output_dir": ("elsewhere", "path"), "teacher": ("other teacher", "weights"), "data_dir": ("other glue", "weights"),
    "corpus": ("glue", "weights"), "num_senses": (2, "weights"), "cap": (5, "weights"), "layer": (1, "weights"), "similarity": ("dot", "chosen"),
    "max_length": (5, "weights"), "restarts": (4, "weights"), "seed": (7, "weights"), "max_tokens": (100, "passes"),
    "bf16": (True, "weights"), "fp16": (True, "refused"), "fsdp": (True, "refused"),
}
BESIDE = {
    "num_train_epochs": {"max_steps": 0}, "restarts": {"num_senses": 4}, "save_total_limit": {"save_steps": 1},
    "relation_heads": {"relation_weight": 1.0}, "student_layers": {"student": "bert"},
    "trim_vocabulary": {"data_dir": "other glue"},  # there a type has no example, and weight decay passes it by
    "use_comp_loss": {"reward_function": "real"}, "meta_epochs": {"reward_function": "real", "meta_learning_rate": 0.1},
    "meta_learning_rate": {"reward_function": "real"}, "policy": {"tasks": "SST-2"},
    "policy_learning_rate": {"tasks": "SST-2", "reward_function": "real"},
    "discount": {"tasks": "SST-2", "reward_function": "real", "policy_learning_rate": 1.0, "episode_batch_size": 1},
    "episode_steps": {"policy": "random"}, "pool_size": {"tasks": "SST-2"},
    "schedule": {"num_train_epochs": 2.0}, "relation_layer": {"relation_weight": 1.0},
    "cache_dir": {"max_steps": 6}, "max_cache_gib": {"max_steps": 6},  # a pass over train: less is not cached
}
