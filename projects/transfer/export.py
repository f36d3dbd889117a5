"""Exports a run's classifier: python -m projects.transfer.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 images [N, H, W, 3] of any size and gives probabilities [N, num_classes]: it resizes the shorter
side with antialiasing, takes the center square, normalizes, and averages the network's softmax over the image and its
mirror image. The run folder is all that is needed; only the 8-bit copy is calibrated on the run's own images.
"""

from core.program import ExportCommand, answer_early, parse_export, run_export
from projects.transfer.config import TASK, Config, ExportOptions, Facts, ModelFacts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ExportOptions)

import torch

from core.export import export_onnx, finish_export
from core.export_program import export_program
from core.plain import to_plain
from core.stored_run import load_run
from core.vision.classification_export import check_same_data, classifier_spec, write_int8
from core.vision.preprocessing import CenterSquare, ImageClassifier
from projects.transfer.adapt import load_adapted
from projects.transfer.backbone import load_classifier
from projects.transfer.data import load_data


def export(command: ExportCommand[ExportOptions]) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    options, output = command.options, command.output
    run = load_run(command.run_dir, options.checkpoint, Config, Facts)
    facts, config = run.facts, run.config
    network = load_classifier(run)
    if options.adapted:
        load_adapted(network, run.path, run.step)
    preprocessing = CenterSquare(facts.image_size, facts.mean, facts.std, side=facts.side)
    module = ImageClassifier(network, preprocessing, config.test_flip).eval()
    data = None
    if options.int8:  # data that is not the run's is refused before anything is written
        data = load_data(config, facts.side, torch.device("cpu"))
        check_same_data(data.sha256, facts.data_sha256, config.data)
    model_facts = ModelFacts(**{**to_plain(facts), "adapted": options.adapted})
    spec = classifier_spec(module, TASK, model_facts, len(facts.classes))
    export_onnx(spec, run, output)
    if "pt2" in options.format:
        export_program(spec, output)
    if data is not None:
        write_int8(output, data.train, data.val)
    finish_export(command, run, "IMAGE_OR_FOLDER...")


if __name__ == "__main__":
    run_export(Config, ExportOptions, export)
