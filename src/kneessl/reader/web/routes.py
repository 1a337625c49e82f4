"""The REST interface: studies go in, answers come out."""

import json
from pathlib import Path as FilePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse

from kneessl.exams.folder import Plane
from kneessl.reader.answer_folder import CAPTURE, REPORT, RESULT, STRUCTURED
from kneessl.reader.web import schema
from kneessl.reader.web.store import Full, Store
from kneessl.reader.web.upload import receive
from kneessl.reader.web.worker import Worker
from kneessl.sources.limits import Limits

StudyNumber = Annotated[int, Path(ge=1, le=2**53, description="The study's number.")]
KneeNumber = Annotated[int, Query(ge=1, le=99, description="Which knee of the study.")]
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""A report is a page of its own, with its pictures and its style in it."""
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["files"],
                }
            }
        },
    }
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of `/openapi.json` for the statuses with which a request may be refused."""
    return {status: {"model": schema.Problem} for status in statuses}


def binary(kind: str, text: str) -> dict[int | str, dict[str, Any]]:
    """The response of `/openapi.json` for a file that is not JSON."""
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}, "description": text}}


def studies_router(store: Store, worker: Worker, limits: Limits, most_waiting: int) -> APIRouter:
    """The routes of studies.

    Args:
        store: Where they lie.
        worker: Told of new ones.
        limits: On uploads.
        most_waiting: Studies that may wait at once.
    """
    router = APIRouter(prefix="/api/studies", tags=["studies"])

    @router.post("", status_code=202, responses=problems(400, 408, 413, 415, 429, 507), openapi_extra=_UPLOAD)
    async def add_study(request: Request) -> schema.Accepted:
        """Take in a study, as a zip or as DICOM files, one part each; its answer comes later."""
        try:
            study = store.add(most_waiting)
        except Full:
            raise HTTPException(429, f"{most_waiting} studies wait already; send this one later.") from None
        try:
            await receive(request, store.incoming(study), limits)
            store.set_stage(study, "queued")
        except BaseException:  # also of a task that is cancelled
            store.delete(study)
            raise
        worker.wake()
        return schema.Accepted(id=study)

    @router.get("")
    def list_studies() -> list[schema.StudyLine]:
        """All studies that are still kept, the newest first."""
        return store.studies()

    @router.get("/{study}", responses=problems(404))
    def get_study(study: StudyNumber) -> schema.Study:
        """How far a study is, and its answers as soon as it is done."""
        line = require_study(store, study)
        try:
            results = [store.answer(study, knee.knee) / RESULT for knee in line.knees]
            answers = [schema.Answer.model_validate_json(path.read_bytes()) for path in results]
            objects = bool(results) and all((path.parent / STRUCTURED).exists() for path in results)
        except FileNotFoundError:  # deleted just now
            raise not_found(study) from None
        return schema.Study(**line.model_dump(), answers=answers, objects=objects)

    @router.delete("/{study}", status_code=204, responses=problems(404, 409))
    def delete_study(study: StudyNumber) -> None:
        """Delete all of a study."""
        if require_study(store, study).stage == "receiving":
            raise HTTPException(409, f"Study {study} is still being sent; delete it when it has come.")
        store.delete(study)

    return router


def answers_router(store: Store) -> APIRouter:
    """The routes of what belongs to an answer.

    Args:
        store: Where they lie.
    """
    router = APIRouter(prefix="/api/studies/{study}", tags=["answers"], responses=problems(404))

    def file(study: int, knee: int, name: str) -> FilePath:
        path = store.answer(study, knee) / name
        if require_study(store, study).stage != "done" or not path.is_file():
            raise not_found(study)
        return path

    def download(study: int, knee: int, name: str, kind: str, policy: str | None = None) -> Response:
        headers = {"Content-Security-Policy": policy} if policy else None
        saved = f"kneessl-{study}-{knee}-{name}"
        return FileResponse(file(study, knee, name), media_type=kind, filename=saved, headers=headers)

    @router.get("/report", response_class=Response, responses=binary("text/html", "A page that stands alone."))
    def report(study: StudyNumber, knee: KneeNumber = 1) -> Response:
        """The report, for people."""
        return download(study, knee, REPORT, "text/html", REPORT_POLICY)

    @router.get("/result", response_model=schema.Answer)
    def result(study: StudyNumber, knee: KneeNumber = 1) -> Response:
        """The answer as the file `result.json`."""
        return download(study, knee, RESULT, "application/json")

    @router.get("/sr", response_class=Response, responses=binary("application/dicom", "A DICOM file."))
    def structured_report(study: StudyNumber, knee: KneeNumber = 1) -> Response:
        """The answer as a DICOM structured report (TID 1500), without identity."""
        return download(study, knee, STRUCTURED, "application/dicom")

    @router.get("/capture", response_class=Response, responses=binary("application/dicom", "A DICOM file."))
    def capture(study: StudyNumber, knee: KneeNumber = 1) -> Response:
        """The answer as a DICOM secondary capture, without identity."""
        return download(study, knee, CAPTURE, "application/dicom")

    @router.get(
        "/slices/{plane}",
        response_class=Response,
        responses=binary("application/octet-stream", "uint8, C order; X-Shape: slices,256,256."),
    )
    def slices(study: StudyNumber, plane: Plane, knee: KneeNumber = 1) -> Response:
        """The grey array_response of a plane, as the model saw them."""
        return array_response(file(study, knee, f"slices/{plane}.npy"))

    @router.get(
        "/heat/{plane}/{task:path}",
        response_class=Response,
        responses=binary("application/octet-stream", "int8, C order, -127 to 127; X-Shape: slices,256,256."),
    )
    def heat(study: StudyNumber, plane: Plane, task: str, knee: KneeNumber = 1) -> Response:
        """What each pixel adds to a finding; 127 is the strongest of the finding in all planes."""
        result = json.loads(file(study, knee, RESULT).read_bytes())
        name = result["planes"].get(plane, {}).get("heat", {}).get(task)
        if name is None:
            raise not_found(study)
        return array_response(file(study, knee, name))

    return router


def require_study(store: Store, study: int) -> schema.StudyLine:
    """Look up a study in the store.

    Raises:
        HTTPException: 404, there is none of that number.
    """
    line = store.study(study)
    if line is None:
        raise HTTPException(404, f"There is no study {study}; it may have been deleted.")
    return line


def not_found(study: int) -> HTTPException:
    """The error for a file that an answer does not have, 404."""
    return HTTPException(404, f"Study {study} has no such file.")


def array_response(path: FilePath) -> Response:
    """A response that holds an array's bytes, with its shape in the header `X-Shape`."""
    array = np.load(path, allow_pickle=False)
    headers = {"X-Shape": ",".join(map(str, array.shape))}
    return Response(array.tobytes(), media_type="application/octet-stream", headers=headers)
