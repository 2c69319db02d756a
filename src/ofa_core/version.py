"""The version, which the package's metadata are read from, and what became of names that earlier versions had."""

__version__ = "0.2.0"

_MODULES_OF_0_1 = {
    "arguments": "heads.arguments",
    "attention": "model.attention",
    "bench.commands": "cli.bench",
    "bench.comparison": "bench.compare",
    "bench.images": "data.images",
    "bench.loading": "data.loading",
    "bench.older": "bench.legacy_results",
    "bench.parts": "bench.result_shards",
    "bench.readers": "data.readers",
    "bench.records": "data.records",
    "bench.scoring": "bench.recount",
    "bench.selfplay": "bench.self_play",
    "bias_cache": "inference.bias_cache",
    "boxes": "vision.boxes",
    "cache": "model.kv_cache",
    "command_line": "cli.options",
    "decoder": "model.decoder",
    "demo.commands": "cli.shapes",
    "distributed": "utils.distributed",
    "drawing": "vision.drawing",
    "drop_path": "vision.drop_path",
    "encoder": "model.encoder",
    "following": "inference.weight_cache",
    "generation.beam": "generation.beam_search",
    "generation.candidates": "generation.scoring",
    "generation.constraints": "generation.logits_processors",
    "inspection": "checkpoint.inspection",
    "int8": "inference.int8",
    "layers": "model.layers",
    "onednn": "inference.onednn",
    "optimize": "inference.fast_model",
    "positions": "model.position_bias",
    "progress": "utils.progress",
    "static_decoder": "inference.compiled_decoder",
    "training.beginnings": "training.init",
    "training.commands": "cli.train",
    "training.examples": "data.examples",
    "training.optimization": "training.optim",
    "training.rows": "data.rows",
    "training.targets": "data.examples",
    "vision.folded": "inference.resnet_folded",
    "vision.winograd": "inference.winograd",
    "weights": "checkpoint.model_dir",
    "whole_files": "utils.atomic_write",
}
#: Names that moved, dotted within the package, and where they are now.
MOVED = {
    old: f"ofa_core.{new}"
    for old, new in {
        **_MODULES_OF_0_1,
        "Look": "EncodedImage",
        "generation.Constraint": "generation.LogitsProcessor",
    }.items()
}
