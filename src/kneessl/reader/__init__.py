"""From a study as a scanner sends it to an answer that a radiologist can check, and back to the archive.

May import any package above it. Begin with `command.py`. Within it, each line imports only from those above:

- `intake/`: a study from a folder, a zip file or DICOMweb, within limits
- `answer/`: what a model says of one knee, from which evidence; its page and pictures
- `dicom/`: the answer as DICOM, a structured report and a picture
- `answer_folder.py`: the answer as files
- `submission.py`: answers on many studies as a challenge takes them
- `command.py`: `kneessl predict`
- `web/`: the page and REST interface of `kneessl serve`
- `archive/`: `kneessl watch`, from Orthanc and back into it
- `serve.py`: `kneessl serve`
"""
