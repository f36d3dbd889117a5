"""Exports a run's classifier: python -m projects.cifar10.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes uint8 images [N, H, W, 3] of any size and gives probabilities [N, num_classes]: it resizes the shorter
side with antialiasing, takes the center square, normalizes, and averages the network's softmax over the image and its
mirror image.
"""

from core.program import ClassifierExportOptions, ExportCommand, answer_early, parse_export, run_export
from projects.cifar10.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ClassifierExportOptions)

import torch

from core.export import export_onnx, finish_export
from core.export_program import export_program
from core.stored_run import StoredRun, load_run
from core.vision.classification import TASK
from core.vision.classification_export import check_same_data, classifier_spec, write_int8
from core.vision.preprocessing import CenterSquare, ImageClassifier
from projects.cifar10.data import load_data
from projects.cifar10.model import build_model


def build_deployed(run: StoredRun[Config, Facts]) -> ImageClassifier:
    """The module to export, with a checkpoint's weights."""
    facts, config = run.facts, run.config
    network = build_model(facts.model, len(facts.classes))
    network.load_state_dict(run.weights())
    preprocessing = CenterSquare(config.image_size, facts.mean, facts.std)
    return ImageClassifier(network, preprocessing, config.test_flip, config.test_shift).eval()


def export(command: ExportCommand[ClassifierExportOptions]) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts)
    output, facts = command.output, run.facts
    if command.options.int8:  # before anything is written
        run.config.check_present(resuming=False)
        data = load_data(run.config, torch.device("cpu"))
        check_same_data(data.sha256, facts.data_sha256, run.config.data)
    spec = classifier_spec(build_deployed(run), TASK, facts, len(facts.classes))
    export_onnx(spec, run, output)
    if "pt2" in command.options.format:
        export_program(spec, output)
    if command.options.int8:
        write_int8(output, data.train, data.val)
    finish_export(command, run, "IMAGE_OR_FOLDER...")


if __name__ == "__main__":
    run_export(Config, ClassifierExportOptions, export)
