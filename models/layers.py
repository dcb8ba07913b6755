"""The layers of a transformers backbone, and the queries, keys and values in them."""

from torch import nn

QUERY_KEY_VALUE = {"deberta-v2": ("query_proj", "key_proj", "value_proj"), "distilbert": ("q_lin", "k_lin", "v_lin")}
USUAL = ("query", "key", "value")  # BERT and what follows it


def layer_stack(backbone: nn.Module) -> tuple[nn.Module, str]:
    """The module that owns the list of transformer layers and the list's name in it."""
    depth = backbone.config.num_hidden_layers
    for owner in backbone.modules():
        for name, child in owner.named_children():
            if type(child) is nn.ModuleList and len(child) == depth:
                return owner, name
    raise ValueError(f"found no list of {depth} layers in a {backbone.config.model_type} encoder: it cannot be cut")


def projections(backbone: nn.Module, layer: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The linear maps to queries, keys and values in layer `layer` (1: the first). ValueError where they are not found."""
    owner, name = layer_stack(backbone)
    names = QUERY_KEY_VALUE.get(backbone.config.model_type, USUAL)
    found = {path.rsplit(".", 1)[-1]: module for path, module in getattr(owner, name)[layer - 1].named_modules()}
    if not set(names) <= found.keys():
        raise ValueError(f"found no {', '.join(names)} in a layer of a {backbone.config.model_type} encoder: its queries, keys "
                         "and values cannot be distilled; pkd and logit_kd need none")
    return tuple(found[name] for name in names)
