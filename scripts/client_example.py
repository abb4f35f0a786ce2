#!/usr/bin/env python3
"""Segments an image, prunes a model and lists models on a running Secateur server.

scripts/client_example.sh makes the Python modules of the service from proto/ and runs this file:

    scripts/client_example.sh list
    scripts/client_example.sh segment image.png mask.png
    scripts/client_example.sh prune CALIBRATION_DIR --target 0.4 --promote always

A calibration folder holds images/ and, if there are any, masks/ with the same names but for the extension.
"""

import argparse
import pathlib
import sys

import grpc
from google.longrunning import operations_pb2_grpc
from google.longrunning import operations_proto_pb2 as operations_pb2
from google.rpc import error_details_pb2, status_pb2

from secateur.v1 import models_pb2, models_pb2_grpc
from secateur.v1 import pruning_pb2, pruning_pb2_grpc
from secateur.v1 import segmentation_pb2, segmentation_pb2_grpc

# gRPC's own limit of 4 MiB is less than one raw 1080p frame.
MAX_MESSAGE = 64 << 20
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def list_models(channel, args):
    """Prints every version; * marks those that serve."""
    reply = models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest())
    for model in reply.models:
        for v in model.versions:
            mark = "*" if v.serving else " "
            print(f"{mark} {v.model} {v.version}  {v.parameters / 1e6:.2f} M parameters, {v.macs / 1e9:.2f} G multiply-adds")


def segment(channel, args):
    """Writes the mask of one image."""
    reply = segmentation_pb2_grpc.SegmentationServiceStub(channel).Segment(
        segmentation_pb2.SegmentRequest(
            model=args.model,
            image=segmentation_pb2.Image(encoded=args.image.read_bytes()),
            options=segmentation_pb2.SegmentOptions(mask_format=segmentation_pb2.MASK_FORMAT_PNG),
        ),
        timeout=30,
    )
    s = reply.segmentation
    args.mask.write_bytes(s.mask.data)
    total = s.timings.total.ToMicroseconds() / 1000
    print(f"{args.mask}: {s.mask.width}x{s.mask.height}, {s.model} version {s.version}, {total:.1f} ms")
    for c in s.classes:
        print(f"class {c.index} {c.name}: {c.area} pixels, mean confidence {c.mean_confidence:.3f}")


def calibration(folder):
    """Yields the images of a folder, each with its mask if there is one."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    masks = {p.stem: p for p in (folder / "masks").glob("*")} if images != folder else {}
    for path in sorted(images.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            mask = masks.get(path.stem)
            yield pruning_pb2.UploadCalibrationRequest(
                item=pruning_pb2.CalibrationItem(
                    name=path.stem, image=path.read_bytes(), mask=mask.read_bytes() if mask else b""
                )
            )


def prune(channel, args):
    """Uploads calibration images, prunes the serving version, and follows it to its end."""
    service = pruning_pb2_grpc.PruningServiceStub(channel)
    uploaded = service.UploadCalibration(calibration(args.folder))
    print(f"{uploaded.calibration}: {uploaded.images} images, labelled: {uploaded.labelled}")
    operation = service.Prune(
        pruning_pb2.PruneRequest(
            model=args.model,
            target=pruning_pb2.PruneTarget(kind=pruning_pb2.TARGET_KIND_MACS, fraction=args.target),
            calibration=uploaded.calibration,
            promotion=pruning_pb2.PromotionPolicy.Value("PROMOTION_POLICY_" + args.promote.replace("-", "_").upper()),
            seed=args.seed,
        )
    )
    stage = None
    try:
        for state in service.WatchPrune(pruning_pb2.WatchPruneRequest(name=operation.name)):
            if state.metadata.progress.stage != stage:
                stage = state.metadata.progress.stage
                print(f"{100 * state.metadata.progress.fraction:3.0f} %  {stage}", flush=True)
    except KeyboardInterrupt:
        operations_pb2_grpc.OperationsStub(channel).CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name))
        sys.exit(f"{operation.name} cancelled")
    if state.WhichOneof("outcome") != "result":
        sys.exit(f"{operation.name}: {state.error.message}")
    r = state.result
    verdict = pruning_pb2.Verdict.Name(r.verdict).removeprefix("VERDICT_")
    serving = "serves" if r.promoted else f"does not serve: {r.not_promoted_reason}"
    print(f"{r.model} version {r.version}, from version {r.parent_version}: {verdict}; it {serving}")
    print(f"multiply-adds {r.macs_before / 1e9:.3f} G -> {r.macs_after / 1e9:.3f} G, parameters {r.parameters_before} -> {r.parameters_after}")


def explain(error):
    """An RPC's error in words, with the fields that were wrong."""
    text = f"{error.code().name}: {error.details()}"
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                bad = error_details_pb2.BadRequest()
                if detail.Unpack(bad):
                    text += "".join(f"\n  {v.field}: {v.description}" for v in bad.field_violations if v.description not in text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addr", default="127.0.0.1:8500", help="the server's gRPC address")
    parser.add_argument("--model", default="", help="the model; by default the server's first")
    commands = parser.add_subparsers(required=True)
    c = commands.add_parser("list", help="list models")
    c.set_defaults(run=list_models)
    c = commands.add_parser("segment", help="segment an image")
    c.add_argument("image", type=pathlib.Path)
    c.add_argument("mask", type=pathlib.Path)
    c.set_defaults(run=segment)
    c = commands.add_parser("prune", help="prune a model")
    c.add_argument("folder", type=pathlib.Path)
    c.add_argument("--target", type=float, default=0.3, help="the part of the multiply-adds to remove")
    c.add_argument("--promote", choices=["on-pass", "staged", "always"], default="on-pass")
    c.add_argument("--seed", type=int, default=1)
    c.set_defaults(run=prune)
    args = parser.parse_args()
    options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
    with grpc.insecure_channel(args.addr, options=options) as channel:
        try:
            args.run(channel, args)
        except grpc.RpcError as error:
            sys.exit(explain(error))


if __name__ == "__main__":
    main()
